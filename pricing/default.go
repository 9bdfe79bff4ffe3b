package pricing

import (
	_ "embed"
	_ "time/tzdata" // books name time zones; a container may have none
)

//go:embed book/default.yaml
var defaultBook []byte

//go:embed book/overlay.yaml
var defaultOverlay []byte

// DefaultSources are the files of the embedded book: what was imported, and our
// overlay with what the import lacks. A user's files go after them.
func DefaultSources() []Source {
	return []Source{{"default.yaml", defaultBook}, {"overlay.yaml", defaultOverlay}}
}

// Default reads the embedded book.
func Default() (*Book, error) { return Parse(DefaultSources()...) }
