package signature

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Segment is a range of a file that is mapped for execution, in bytes.
type Segment struct{ Offset, Size uint64 }

// piece is how much is looked at at once, in bytes.
const piece = 1 << 20

// ErrTwice says that code matches at more than one place.
var ErrTwice = errors.New("more than one place matches")

// Match is a function that was found.
type Match struct {
	*Signature
	Offset uint64 // of the function in the file
}

// In reports whether the function stands at the same place of another file, in one of
// its segments.
func (m Match) In(r io.ReaderAt, segments []Segment) bool {
	start, code := m.Offset-uint64(m.Start), make([]byte, len(m.code))
	inside := func(s Segment) bool {
		n := uint64(len(code))
		return start >= s.Offset && n <= s.Size && start-s.Offset <= s.Size-n
	}
	if !slices.ContainsFunc(segments, inside) {
		return false
	}
	n, _ := r.ReadAt(code, int64(start))
	return n == len(code) && m.matches(code)
}

// Find returns the functions that are found once in the segments of a file, and by
// name those that are refused because they were found more often (ErrTwice). pace is
// called with the bytes that were read, and stops the search with an error. Memory is
// bounded by a piece, whatever the file's size.
func (set Set) Find(r io.ReaderAt, segments []Segment, pace func(int) error) ([]Match, map[string]error, error) {
	overlap := 0
	for _, s := range set {
		overlap = max(overlap, len(s.code)-1)
	}
	found := make(map[*Signature][]uint64)
	buf := make([]byte, piece+overlap)
	for _, seg := range segments {
		kept := 0 // bytes at the beginning of buf that were there in the piece before
		for at := uint64(0); at < seg.Size; {
			n := int(min(piece, seg.Size-at))
			read, err := r.ReadAt(buf[kept:kept+n], int64(seg.Offset+at))
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, nil, fmt.Errorf("read code: %w", err)
			}
			have := buf[:kept+read]
			start := seg.Offset + at - uint64(kept)
			for _, s := range set {
				// What lies whole in what was kept was found before.
				for _, i := range s.in(have, max(0, kept-len(s.code)+1)) {
					if len(found[s]) < 2 {
						found[s] = append(found[s], start+uint64(i+s.Start))
					}
				}
			}
			if err := pace(read); err != nil {
				return nil, nil, err
			}
			if read < n { // the file is shorter than it claims
				break
			}
			at += uint64(n)
			kept = copy(buf, have[max(0, len(have)-overlap):])
		}
	}
	var matches []Match
	refused := make(map[string]error)
	for _, s := range set {
		switch len(found[s]) {
		case 1:
			matches = append(matches, Match{s, found[s][0]})
		case 2:
			refused[s.String()] = ErrTwice
		}
	}
	return matches, refused, nil
}

// in returns where in b, from the place from on, the signature matches.
func (s *Signature) in(b []byte, from int) (places []int) {
	for at := from + s.at; at < len(b); {
		i := bytes.Index(b[at:], s.anchor)
		if i < 0 {
			return places
		}
		if start := at + i - s.at; s.matches(b[start:]) {
			places = append(places, start)
		}
		at += i + 1
	}
	return places
}

// Complete returns, by library, the matches of those variants of which all functions
// of the set were found. Of a library that has some functions of a variant and lacks
// others nothing is returned: the CPU may choose that variant, and records would be
// seen in part. Of a named build every function must be there, since other builds and
// libraries share some; of more than one the first is returned.
func (set Set) Complete(matches []Match) map[string][]Match {
	type build struct{ library, name string }
	type variant struct {
		build
		name string
	}
	wanted, found := make(map[variant]int), make(map[variant]int)
	var builds []build
	for _, s := range set {
		b := build{s.Library, s.Build}
		wanted[variant{b, s.Variant}]++
		if !slices.Contains(builds, b) {
			builds = append(builds, b)
		}
	}
	of := make(map[build][]Match)
	for _, m := range matches {
		b := build{m.Library, m.Build}
		found[variant{b, m.Variant}]++
		of[b] = append(of[b], m)
	}
	for v, n := range wanted {
		if found[v] < n && (found[v] > 0 || v.build.name != "") {
			delete(of, v.build)
		}
	}
	all := make(map[string][]Match)
	for _, b := range builds {
		if all[b.library] == nil && of[b] != nil {
			all[b.library] = of[b]
		}
	}
	return all
}
