package pricing

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Format is the first line of every book: `format: tollwire-prices/1`.
const Format = "tollwire-prices/1"

// Source is the content of one file of a book.
type Source struct {
	Name string // for errors
	Data []byte
}

// Load reads files and lays each over the ones before it. The error names file,
// line and reason of everything wrong, up to a bound.
func Load(files ...string) (*Book, error) {
	sources := make([]Source, 0, len(files))
	for _, name := range files {
		s, err := readSource(name)
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	return Parse(sources...)
}

// Overlaid is Load over the embedded book.
func Overlaid(files ...string) (*Book, error) {
	sources := DefaultSources()
	for _, name := range files {
		s, err := readSource(name)
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	return Parse(sources...)
}

func readSource(name string) (Source, error) {
	f, err := os.Open(name)
	if err != nil {
		return Source{}, fmt.Errorf("open price book: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBookBytes+1))
	if err != nil {
		return Source{}, fmt.Errorf("read price book: %w", err)
	}
	return Source{Name: name, Data: data}, nil
}

// Parse is Load for content that is in memory already.
func Parse(sources ...Source) (*Book, error) {
	if len(sources) == 0 {
		return nil, errors.New("a price book needs at least one file")
	}
	var merged draft
	var errs []error
	for _, s := range sources {
		d, err := parseDraft(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		merged.overlay(d)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	b, err := merged.compile()
	if err != nil {
		return nil, err
	}
	b.hash = hashOf(sources)
	b.version = b.date.Format(time.DateOnly) + "+" + hex.EncodeToString(b.hash[:4])
	return b, nil
}

func hashOf(sources []Source) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, s := range sources {
		fmt.Fprintf(h, "%d\n", len(s.Data))
		h.Write(s.Data)
	}
	h.Sum(sum[:0])
	return sum
}
