package sim

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"github.com/tollwire/tollwire/har"
)

// archive holds recorded exchanges to answer from.
type archive struct {
	mu     sync.Mutex
	byID   map[string]*har.Entry
	byPath map[string][]*har.Entry // method and path, in the order they were recorded
	next   map[string]int
}

// loadArchive reads HAR files; it returns nil for none.
func loadArchive(paths []string) (*archive, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	a := &archive{byID: make(map[string]*har.Entry), byPath: make(map[string][]*har.Entry), next: make(map[string]int)}
	for _, path := range paths {
		if err := a.load(path); err != nil {
			return nil, fmt.Errorf("load %s: %w", path, err)
		}
	}
	return a, nil
}

func (a *archive) load(path string) error {
	r, err := har.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		u, err := url.Parse(e.Request.URL)
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Number, err)
		}
		if e.ID != "" {
			a.byID[e.ID] = e
		}
		key := e.Request.Method + " " + u.EscapedPath()
		a.byPath[key] = append(a.byPath[key], e)
	}
}

// entryHeader names the recorded entry that a request is to be answered with.
const entryHeader = "X-Llmsim-Entry"

// serves reports whether r is answered from the archive: it names an entry, or
// its method and path were recorded and it does not ask for a plan of its own.
func (a *archive) serves(r *http.Request) bool {
	if r.Header.Get(entryHeader) != "" {
		return true
	}
	if a == nil || r.Header.Get("X-Llmsim") != "" {
		return false
	}
	return len(a.byPath[r.Method+" "+r.URL.EscapedPath()]) > 0
}

// find returns the entry for r: the one it names, else the next one that was
// recorded for its path, from the start again after the last.
func (a *archive) find(r *http.Request) *har.Entry {
	if a == nil {
		return nil
	}
	if id := r.Header.Get(entryHeader); id != "" {
		return a.byID[id]
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	key := r.Method + " " + r.URL.EscapedPath()
	list := a.byPath[key]
	e := list[a.next[key]%len(list)]
	a.next[key]++
	return e
}

// replay answers from the archive, in the pieces the body arrived in.
func (s *Server) replay(w http.ResponseWriter, r *http.Request) {
	c := s.begin(w, r)
	defer c.finish()
	c.entry.Provider, c.entry.Operation, c.entry.Outcome = "recorded", "recorded", "error"
	fail := func(status int, err error) {
		c.entry.Status = status
		sendJSON(w, status, map[string]string{"error": err.Error()})
	}
	if err := c.read(); err != nil {
		fail(http.StatusBadRequest, err)
		return
	}
	var err error
	if c.plan, err = planFor(s.plan, r); err != nil {
		fail(http.StatusBadRequest, err)
		return
	}
	e := s.recorded.find(r)
	if e == nil {
		fail(http.StatusNotFound, fmt.Errorf("no recorded entry %q", r.Header.Get(entryHeader)))
		return
	}
	a := &e.Response
	c.entry.ID, c.entry.RequestID = e.ID, ""
	if a.Status < 200 || a.Status > 999 {
		fail(http.StatusBadGateway, fmt.Errorf("entry %q has no response to replay: status %d", e.ID, a.Status))
		return
	}
	h := w.Header()
	for name, values := range a.Header {
		switch name {
		case "Content-Length", "Transfer-Encoding", "Content-Encoding", "Connection":
		default:
			h[name] = values
		}
	}
	coding := c.coding()
	streams := a.Streams() || a.Chunks != nil
	if coding != "identity" {
		h.Set("Content-Encoding", coding)
		streams = true
	}
	if !streams {
		h.Set("Content-Length", strconv.Itoa(len(a.Body)))
	}
	c.entry.Status, c.entry.Stream, c.entry.HeadSent = a.Status, a.Streams(), Now()
	w.WriteHeader(a.Status)
	out := newOutput(c, sse, coding)
	for i, p := range a.Pieces() {
		if i > 0 && !c.wait(c.plan.Gap) {
			c.entry.Outcome = "client_gone"
			return
		}
		if i == c.plan.Cut {
			c.entry.Outcome = "cut"
			return
		}
		if err := out.put(p, 0); err != nil {
			c.entry.Outcome = "client_gone"
			return
		}
	}
	if err := out.end(); err != nil {
		c.entry.Outcome = "client_gone"
		return
	}
	c.entry.Outcome = "completed"
}
