package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// Entry is what the simulator did for one call: the truth an observer is held to.
// Times are nanoseconds on CLOCK_MONOTONIC, 0 when the moment never came.
type Entry struct {
	ID        string `json:"id"`         // response id as the body states it, "" when it states none
	RequestID string `json:"request_id"` // as the response's header states it
	Client    string `json:"client,omitempty"`
	Conn      uint64 `json:"conn"` // of Ledger.Conns
	HTTP      string `json:"http"` // HTTP/1.1, HTTP/2.0, websocket
	TLS       string `json:"tls,omitempty"`
	Cipher    string `json:"cipher,omitempty"`

	Provider  string   `json:"provider"`
	Operation string   `json:"operation"`
	Method    string   `json:"method"`
	Path      string   `json:"path"`
	Asked     string   `json:"model_asked,omitempty"`
	Served    string   `json:"model_served,omitempty"`
	Stream    bool     `json:"stream"`
	Status    int      `json:"status"`
	Finish    []string `json:"finish_reasons,omitempty"` // stated ones, the provider's words
	Tier      string   `json:"service_tier,omitempty"`
	Tools     []string `json:"tools,omitempty"`

	Error     string `json:"error,omitempty"`      // the provider's type
	ErrorCode string `json:"error_code,omitempty"` // and its code, where it has both
	Outcome   string `json:"outcome"`              // completed, error, cut, client_gone

	// Usage is what was stated on the wire, the last statement of each class; keys
	// are llm.Class names. Stated says what an observer may make of it: exact (the
	// final usage was sent), estimated (something was, then the call was cut) or
	// missing. Generated is what the call really used.
	Usage     map[string]float64 `json:"usage,omitempty"`
	Stated    string             `json:"stated"`
	Generated map[string]float64 `json:"generated,omitempty"`

	RequestBytes  int64 `json:"request_bytes"`  // body, as it crossed
	ResponseBytes int64 `json:"response_bytes"` // body, as it crossed, without chunk framing

	Started    time.Time `json:"started"`
	FirstByte  int64     `json:"first_byte"`  // the request's first byte was read
	RequestEnd int64     `json:"request_end"` // its body was whole
	HeadSent   int64     `json:"head_sent"`
	End        int64     `json:"end"` // the last write, or the cut

	Writes        []Write `json:"writes,omitempty"`
	WritesDropped int     `json:"writes_dropped,omitempty"` // beyond MaxWrites
	ContentWrites int     `json:"content_writes"`           // events of content, also of dropped writes
}

// Write is one write of the response's body.
type Write struct {
	At      int64 // just before the write, CLOCK_MONOTONIC nanoseconds
	Bytes   int   // of the body, before content coding
	Content int   // events of generated content it completes
}

// MarshalJSON writes [at, bytes, content].
func (w Write) MarshalJSON() ([]byte, error) {
	return json.Marshal([3]int64{w.At, int64(w.Bytes), int64(w.Content)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (w *Write) UnmarshalJSON(b []byte) error {
	var v [3]int64
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	w.At, w.Bytes, w.Content = v[0], int(v[1]), int(v[2])
	return nil
}

// Conn is one connection that was accepted.
type Conn struct {
	ID      uint64 `json:"conn"`
	Addr    string `json:"addr"` // the client's
	TLS     string `json:"tls,omitempty"`
	Cipher  string `json:"cipher,omitempty"`
	Read    int64  `json:"read"`    // application bytes, after TLS
	Written int64  `json:"written"` //
	Closed  bool   `json:"closed"`
}

// Bounds of what a ledger remembers; the oldest go first.
const (
	MaxEntries = 20000
	MaxConns   = 20000
	MaxWrites  = 20000 // of one entry
)

// Ledger is what the simulator served, in the order it ended. It is safe for
// concurrent use.
type Ledger struct {
	mu      sync.Mutex
	entries []*Entry
	conns   map[uint64]*countedConn
	oldest  []uint64 // ids of conns, in order
	dropped int
	added   chan struct{} // closed and made anew when an entry is added
	file    io.Writer     // JSON Lines, or nil
	err     error         // of the file, the first
}

// Entries returns the finished calls, oldest first. They must not be changed.
func (l *Ledger) Entries() []*Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Entry(nil), l.entries...)
}

// Wait returns the finished calls once there are n of them: a client may have read
// its answer a moment before the call is entered.
func (l *Ledger) Wait(ctx context.Context, n int) ([]*Entry, error) {
	for {
		l.mu.Lock()
		if l.added == nil {
			l.added = make(chan struct{})
		}
		added, have := l.added, len(l.entries)
		l.mu.Unlock()
		if have >= n {
			return l.Entries(), nil
		}
		select {
		case <-added:
		case <-ctx.Done():
			return l.Entries(), fmt.Errorf("%d of %d calls are in the ledger: %w", have, n, ctx.Err())
		}
	}
}

// Dropped is how many entries were forgotten for MaxEntries.
func (l *Ledger) Dropped() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// Conns returns the connections seen, oldest first.
func (l *Ledger) Conns() []Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Conn, 0, len(l.oldest))
	for _, id := range l.oldest {
		out = append(out, l.conns[id].state())
	}
	return out
}

// Reset forgets all entries. Connections stay.
func (l *Ledger) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries, l.dropped = nil, 0
}

// Err is the first error of writing the ledger's file.
func (l *Ledger) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *Ledger) add(e *Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) == MaxEntries {
		copy(l.entries, l.entries[1:])
		l.entries = l.entries[:MaxEntries-1]
		l.dropped++
	}
	l.entries = append(l.entries, e)
	if l.added != nil {
		close(l.added)
		l.added = nil
	}
	if l.file == nil || l.err != nil {
		return
	}
	line, err := json.Marshal(e)
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	if err != nil {
		l.err = fmt.Errorf("write ledger: %w", err)
	}
}

func (l *Ledger) addConn(c *countedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.oldest) == MaxConns {
		delete(l.conns, l.oldest[0])
		copy(l.oldest, l.oldest[1:])
		l.oldest = l.oldest[:MaxConns-1]
	}
	if l.conns == nil {
		l.conns = make(map[uint64]*countedConn)
	}
	l.conns[c.id] = c
	l.oldest = append(l.oldest, c.id)
}

// write appends w, up to MaxWrites.
func (e *Entry) write(w Write) {
	e.ContentWrites += w.Content
	if len(e.Writes) == MaxWrites {
		e.WritesDropped++
		return
	}
	e.Writes = append(e.Writes, w)
}

// Contents are the times of the content events, one for each, in order.
func (e *Entry) Contents() []int64 {
	var at []int64
	for _, w := range e.Writes {
		for range w.Content {
			at = append(at, w.At)
		}
	}
	return at
}

func classes(u *llm.Usage) map[string]float64 {
	m := make(map[string]float64)
	for c := range llm.NumClasses {
		if u.Has(c) {
			m[c.String()] = u.Get(c)
		}
	}
	return m
}
