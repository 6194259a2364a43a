from scripts import ledger


def test_the_ledgers_page_is_what_its_rows_say() -> None:
    assert ledger.PAGE.read_text(encoding="utf-8") == ledger.render()
