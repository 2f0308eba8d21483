from tests.golden import FILE, write

write()
print(f"wrote {FILE}")
