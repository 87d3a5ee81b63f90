"""What a Book can be asked, one page for each kind of question."""
