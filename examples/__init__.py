"""Small programs that show Adlik at work; `make demo` runs the main one."""
