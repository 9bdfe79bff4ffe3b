package probes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
)

// needRoot skips what attaches; `make test` runs these tests as root.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 || testing.Short() {
		t.Skip("attaches, and so needs root and some seconds; make test-root runs this")
	}
	watch(t)
}

// store is a running kernel side and all that came out of it.
type store struct {
	taps *Taps
	wg   sync.WaitGroup

	mu      sync.Mutex
	streams map[stream]*content
	taken   int // records
	wrong   []string
}

type stream struct {
	conn flow.Conn
	dir  flow.Dir
}

// content is what came of one direction of a connection.
type content struct {
	conn      flow.Conn
	source    flow.Source
	late      bool
	bytes     []byte // gaps as zero bytes
	gap       uint64
	times     []flow.Time
	heads     int
	exchanges []uint32       // of the heads
	grown     time.Time      // when its last record came
	last      int            // payload, by the number of records that came before it
	reason    flow.GapReason // of the last gap
	peer      netip.AddrPort
	ended     bool // in order
	closed    bool
	past      bool // is found no more
}

func open(cfg Config) (*store, error) {
	cfg.Sockets = byWay
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	taps, err := Start(context.Background(), cfg)
	if err != nil {
		return nil, err
	}
	s := &store{taps: taps, streams: make(map[stream]*content)}
	for i := range taps.Shards() {
		s.wg.Go(func() { s.read(i) })
	}
	return s, nil
}

func (s *store) close() error {
	err := s.taps.Close()
	s.wg.Wait()
	return err
}

// shared is what the tests share that need nothing of their own, once it is open: loading
// takes seconds, and in an emulated machine a minute.
var shared *store

func common() (*store, error) {
	if shared != nil {
		return shared, nil
	}
	// What nobody maps is let go after a while, and then the first session is late.
	user := exec.Command("python3", "-c", `
import ctypes, sys
for lib in "libssl.so.3", "libgnutls.so.30", "libnspr4.so", "libssl3.so":
    try: ctypes.CDLL(lib)
    except OSError: pass # its test will say so
sys.stdin.read()`)
	_, err := user.StdinPipe() // ends with this process
	if err = errors.Join(err, user.Start()); err != nil {
		return nil, err
	}
	shared, err = open(Config{})
	return shared, err
}

// capture is a test's view of a store.
type capture struct {
	*testing.T
	*store
}

func start(t *testing.T, cfg Config) *capture {
	t.Helper()
	needRoot(t)
	began, make := time.Now(), common
	own := cfg != Config{}
	if own {
		make = func() (*store, error) { return open(cfg) }
	}
	s, err := make()
	if err != nil {
		t.Fatal(err)
	}
	if !own && s.taps.cfg.Sockets != byWay {
		if err := s.turn(byWay, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tap := range tlsTaps {
		if err := s.taps.refused[tap.source]; err != nil && !errors.Is(err, errTooOld) {
			t.Errorf("%v: %v", tap.source, err)
		}
	}
	if took := time.Since(began); took > 100*time.Millisecond {
		t.Logf("attached after %v; sockets by %s", took.Round(time.Millisecond), s.taps.sockets)
	}
	c := &capture{T: t, store: s}
	tried, before := watch(t), s.taps.Stats().missed()
	t.Cleanup(func() {
		c.balanced()
		tried.missed = tried.missed || s.taps.Stats().missed() > before
		s.mu.Lock()
		for _, w := range s.wrong {
			t.Error(w)
		}
		s.wrong = nil
		s.mu.Unlock()
		if own {
			if err := s.close(); err != nil {
				t.Error(err)
			}
		}
	})
	return c
}

// known makes requests until one is seen from its birth: the library that curl uses
// may be new to the agent.
func (c *capture) known(url, ca string) {
	c.Helper()
	for i := range 100 {
		id := fmt.Sprintf("warm-%d-%d", time.Now().UnixNano(), i)
		curl(c.T, ca, "--data", "{}", url+"/v1/x?id="+id)
		time.Sleep(50 * time.Millisecond)
		if found := c.seen(flow.Write, id); len(found) == 1 && !found[0].late {
			return
		}
	}
	c.Fatal("curl's library was not tapped")
}

func (s *store) read(shard int) {
	var d flow.Data
	for {
		err := s.taps.Read(shard, &d)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		s.mu.Lock()
		if err != nil {
			s.wrong = append(s.wrong, err.Error())
			s.mu.Unlock()
			return
		}
		s.take(&d)
		s.mu.Unlock()
	}
}

func (s *store) take(d *flow.Data) {
	if d.Kind == flow.KindExit {
		return
	}
	k := stream{d.Conn, d.Dir}
	c := s.streams[k]
	if c == nil {
		c = &content{conn: d.Conn, source: d.Source, late: d.Late}
		s.streams[k] = c
	}
	if d.Conn.Gen == 0 || d.Conn.Proc.Start == 0 {
		s.wrong = append(s.wrong, fmt.Sprintf("a record without generation or start: %+v", d.Conn))
	}
	if at := uint64(len(c.bytes)) + d.Gap; at != d.Pos && !d.Late {
		s.wrong = append(s.wrong, fmt.Sprintf("%v %v: position %d, want %d: %d bytes and a gap of %d before", d.Conn, d.Dir, d.Pos, at, len(c.bytes), d.Gap))
	}
	c.gap += d.Gap
	c.bytes = append(c.bytes, make([]byte, d.Gap)...)
	c.bytes = append(c.bytes, d.Payload...)
	c.times = append(c.times, d.Time)
	c.grown = time.Now()
	if s.taken++; len(d.Payload) > 0 {
		c.last = s.taken
	}
	if d.Head {
		c.heads++
		c.exchanges = append(c.exchanges, d.Exchange)
	}
	if d.Gap > 0 {
		c.reason = d.GapReason
	}
	c.peer = d.Peer
	c.ended = c.ended || d.Kind == flow.KindEOF
	c.closed = c.closed || d.Kind == flow.KindClose
}

// balanced: seen = submitted + ignored + dropped, for every source.
func (c *capture) balanced() {
	c.Helper()
	wrong := ""
	for range 50 {
		wrong = ""
		for src, s := range c.taps.Stats().Sources {
			sum := s.Submitted + s.Ignored
			for _, n := range s.Dropped {
				sum += n
			}
			// Up to seven bytes a connection may be the start of a head.
			if s.Seen < sum || s.Seen > sum+64 {
				wrong += fmt.Sprintf("%v: %d of %d bytes are missing: %+v; ", flow.Source(src), int64(s.Seen-sum), s.Seen, s)
			}
		}
		if wrong == "" {
			return
		}
		time.Sleep(20 * time.Millisecond) // other programs' calls are under way
		if c.Failed() {
			break
		}
	}
	c.Error("the books do not balance: " + wrong)
}

// find returns the streams of one direction whose bytes hold text.
func (c *capture) find(dir flow.Dir, text string) (found []*content) {
	deadline := time.Now().Add(20 * time.Second) // emulated machines are slow
	for len(found) == 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
		found = c.seen(dir, text)
	}
	return found
}

// seen is find without waiting.
func (c *capture) seen(dir flow.Dir, text string) (found []*content) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, s := range c.streams {
		if k.dir == dir && !s.past && bytes.Contains(s.bytes, []byte(text)) {
			snapshot := *s
			found = append(found, &snapshot)
		}
	}
	return found
}

// one returns the only stream with that text.
func (c *capture) one(dir flow.Dir, text string) *content {
	c.Helper()
	found := c.find(dir, text)
	for len(found) == 1 && !found[0].settled() {
		time.Sleep(20 * time.Millisecond)
		found = c.seen(dir, text)
	}
	if len(found) != 1 {
		c.Fatalf("%q was seen %d times, want once", text, len(found))
	}
	return found[0]
}

// settled reports whether nothing has come for a while: the rest may be on its way.
func (s *content) settled() bool { return time.Since(s.grown) > 200*time.Millisecond }
