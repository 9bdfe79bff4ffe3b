package pricing

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Config says which files make the price book.
type Config struct {
	Files     []string      // laid over the embedded book, in order
	NoDefault bool          // without the embedded book
	Poll      time.Duration // how often files are looked at; 0: 10 seconds
}

// Store holds the book in force and follows its files. Files are read and compared
// by content at every look: a ConfigMap's swapped links, an editor's rename and a
// network file system are all the same to it.
type Store struct {
	config Config
	log    *slog.Logger
	book   atomic.Pointer[Book]

	mu      sync.Mutex // guards what follows
	refused refusal
	status  Status
}

// refusal is the content that was refused last, and why.
type refusal struct {
	hash   [sha256.Size]byte
	err    error
	reason string // logged
}

// Status is what became of the files at the last look.
type Status struct {
	Version string    `json:"version"` // in force
	Since   time.Time `json:"since"`
	Models  int       `json:"models"`
	Refused string    `json:"refused,omitempty"` // why newer content is not in force
	Reloads int       `json:"reloads"`
	Errors  int       `json:"errors"`
}

// Open reads the book; an error leaves nothing open.
func Open(c Config, log *slog.Logger) (*Store, error) {
	if c.Poll <= 0 {
		c.Poll = 10 * time.Second
	}
	s := &Store{config: c, log: log}
	b, err := s.read()
	if err != nil {
		return nil, err
	}
	s.book.Store(b)
	s.status = Status{Version: b.version, Since: time.Now(), Models: b.Models()}
	for _, w := range b.Lint() {
		log.Debug("price book looks wrong", "where", w.Where, "what", w.What)
	}
	return s, nil
}

func (s *Store) read() (*Book, error) {
	sources, err := s.sources()
	if err != nil {
		return nil, err
	}
	// Content that is in force, or was refused, is not parsed again.
	hash := hashOf(sources)
	if b := s.book.Load(); b != nil && b.hash == hash {
		return b, nil
	}
	if s.refused.err != nil && s.refused.hash == hash {
		return nil, s.refused.err
	}
	b, err := Parse(sources...)
	if err != nil {
		s.refused.hash, s.refused.err = hash, err
	}
	return b, err
}

func (s *Store) sources() ([]Source, error) {
	var sources []Source
	if !s.config.NoDefault {
		sources = DefaultSources()
	}
	for _, name := range s.config.Files {
		src, err := readSource(name)
		if err != nil {
			return nil, err
		}
		sources = append(sources, src)
	}
	if len(sources) == 0 {
		return nil, errors.New("a price book needs at least one file")
	}
	return sources, nil
}

// Book returns the book in force.
func (s *Store) Book() *Book { return s.book.Load() }

// Price asks the book in force.
func (s *Store) Price(q Query) Price { return s.Book().Price(q) }

// API asks the book in force.
func (s *Store) API(host, path, method string) string { return s.Book().API(host, path, method) }

// Status returns what is in force.
func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Watch follows the files until ctx ends, and calls changed with every book that
// comes into force.
func (s *Store) Watch(ctx context.Context, changed func(*Book)) {
	if len(s.config.Files) == 0 {
		return
	}
	tick := time.NewTicker(s.config.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			old := s.Book()
			if s.Reload(); s.Book() != old {
				changed(s.Book())
			}
		}
	}
}

// Reload looks at the files once. New content that is right is in force when it
// returns; content that is wrong is refused with every fault's line and reason, and
// the book in force stays. The error is logged once for each content.
func (s *Store) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.book.Load()
	b, err := s.read()
	switch {
	case err != nil:
		if reason := err.Error(); reason != s.refused.reason {
			s.refused.reason, s.status.Refused = reason, reason
			s.status.Errors++
			s.log.Error("price book refused", "err", err, "in_force", old.version)
		}
		return err
	case b == old:
		s.refused, s.status.Refused = refusal{}, ""
		return nil
	}
	changes := Diff(old, b)
	s.book.Store(b)
	s.refused = refusal{}
	s.status = Status{
		Version: b.version, Since: time.Now(), Models: b.Models(),
		Reloads: s.status.Reloads + 1, Errors: s.status.Errors,
	}
	s.log.Info("price book changed", "from", old.version, "to", b.version, "changes", len(changes))
	return nil
}
