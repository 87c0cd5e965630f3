"""The engine: pure functions over integer columns, compiled by mypyc where a compiler was at hand."""
