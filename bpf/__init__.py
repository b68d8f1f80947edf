"""The kernel side, in C; a package so that the sources travel with the installed agent."""
