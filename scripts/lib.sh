# What the setup scripts share; to be sourced.

# Ends unless the disk of the current folder has room: enough_room SCRIPT GIB
enough_room() {
  local free_gib
  free_gib=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1048576))
  if [ "$free_gib" -lt "$2" ]; then
    echo "$1: needs $2 GiB on the disk of '$PWD', which has $free_gib GiB free. Free some." >&2
    exit 2
  fi
}
