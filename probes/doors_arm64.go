package probes

// A door is a function that a program calls, by its range in the file.
type door struct {
	start uint64
	code  []byte
}

// behind finds nothing: on arm64 no place is cheaper than another.
func behind(plain, ex door) (start uint64, ok bool) { return 0, false }
