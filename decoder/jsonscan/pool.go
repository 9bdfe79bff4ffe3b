package jsonscan

import (
	"io"
	"sync"
)

// Pool lends Scanners, so that a stream that waits for its next event holds none.
// The zero value is ready; it is safe for concurrent use.
type Pool struct{ p sync.Pool }

// Get lends a Scanner that reads from r.
func (p *Pool) Get(r io.Reader) *Scanner {
	s, _ := p.p.Get().(*Scanner)
	if s == nil {
		s = new(Scanner)
	}
	s.Reset(r)
	return s
}

// Put takes s back; it must not be used any more.
func (p *Pool) Put(s *Scanner) {
	s.ResetBytes(nil)
	p.p.Put(s)
}
