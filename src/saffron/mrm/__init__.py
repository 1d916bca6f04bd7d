"""Stage mrm: the multifurcation reward model, trained on Safety4M and compared with the guard."""
