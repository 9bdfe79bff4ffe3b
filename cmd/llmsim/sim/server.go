// Package sim is a simulator of LLM providers: it speaks their APIs over real TLS
// and plaintext, with made-up content, set pacing and set faults, and keeps a
// ledger of what it truly served. It opens no connection of its own.
package sim

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Config is what a Server is made of. Dir is required; every other zero value is
// a usable default.
type Config struct {
	Dir     string   // gets ca.pem, leaf.pem, leaf.key and ledger.jsonl
	TLSAddr []string // addresses to serve TLS on; none: 127.0.0.1:0; "-" for no TLS
	Addr    []string // addresses to serve plaintext on; none: 127.0.0.1:0; "-" for no plaintext
	Chatty  string   // address of a server that speaks no HTTP; "": none

	Key          string   // of the certificates: ecdsa, rsa
	MinVersion   uint16   // of TLS; 0: 1.2
	MaxVersion   uint16   // 0: 1.3
	CipherSuites []uint16 // of TLS 1.2, by id; nil: Go's
	NoHTTP2      bool     // do not offer h2 by ALPN

	// Tap, when set, wraps what each connection carries after TLS.
	Tap  func(conn uint64, c net.Conn) net.Conn
	Plan *Plan    // the default plan; nil: DefaultPlan()
	HAR  []string // archives to answer from
	Log  *slog.Logger
}

// maxBody bounds a request's body.
const maxBody = 256 << 20

// Server is a running simulator.
type Server struct {
	cfg      Config
	log      *slog.Logger
	plan     Plan
	tls      *tls.Config
	ca       string
	nonce    string
	calls    atomic.Uint64
	connIDs  atomic.Uint64
	ledger   Ledger
	file     *os.File
	recorded *archive
	later    later

	h1      *http.Server
	h2      *http2.Server
	secure  []net.Listener
	plain   []net.Listener
	chatty  net.Listener
	hand    *handed
	wg      sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelFunc
	live    sync.Mutex
	conns   map[*countedConn]struct{}
	closing bool
}

// Start makes the certificates, opens the ledger's file and listens. The server
// serves until Close.
func Start(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, log: cfg.Log, plan: DefaultPlan(), conns: make(map[*countedConn]struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Plan != nil {
		s.plan = *cfg.Plan
	}
	var nonce [5]byte
	rand.Read(nonce[:])
	s.nonce = hex.EncodeToString(nonce[:])
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.start(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) start() error {
	ca, err := newAuthority(s.cfg.Dir, s.cfg.Key)
	if err != nil {
		return err
	}
	s.ca = ca.path
	s.tls = &tls.Config{
		Certificates: []tls.Certificate{ca.leaf},
		MinVersion:   s.cfg.MinVersion, MaxVersion: s.cfg.MaxVersion, CipherSuites: s.cfg.CipherSuites,
		NextProtos: []string{"h2", "http/1.1"},
	}
	if s.cfg.NoHTTP2 {
		s.tls.NextProtos = s.tls.NextProtos[1:]
	}
	if s.recorded, err = loadArchive(s.cfg.HAR); err != nil {
		return err
	}
	if s.file, err = os.Create(filepath.Join(s.cfg.Dir, "ledger.jsonl")); err != nil {
		return err
	}
	s.ledger.file = s.file
	s.h1 = &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout: 10 * time.Minute, // tests connect their clients long before these ask
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	s.h2 = &http2.Server{MaxConcurrentStreams: 1000}
	if s.secure, err = listen(s.cfg.TLSAddr); err != nil {
		return fmt.Errorf("listen for TLS: %w", err)
	}
	if s.plain, err = listen(s.cfg.Addr); err != nil {
		return fmt.Errorf("listen for plaintext: %w", err)
	}
	if s.cfg.Chatty != "" {
		if s.chatty, err = net.Listen("tcp", s.cfg.Chatty); err != nil {
			return fmt.Errorf("listen for chatter: %w", err)
		}
		s.wg.Go(func() { s.accept(s.chatty, s.chat) })
	}
	s.hand = newHanded(&net.TCPAddr{})
	s.wg.Go(func() { s.h1.Serve(s.hand) })
	for _, l := range s.secure {
		s.wg.Go(func() { s.accept(l, s.serveTLS) })
	}
	for _, l := range s.plain {
		s.wg.Go(func() { s.accept(l, s.servePlain) })
	}
	return nil
}

func listen(addrs []string) ([]net.Listener, error) {
	if len(addrs) == 0 {
		addrs = []string{"127.0.0.1:0"}
	}
	var ls []net.Listener
	for _, a := range addrs {
		if a == "-" || a == "" {
			continue
		}
		l, err := net.Listen("tcp", a)
		if err != nil {
			for _, l := range ls {
				l.Close()
			}
			return nil, err
		}
		ls = append(ls, l)
	}
	return ls, nil
}

// CA is the path of the authority's certificate, PEM.
func (s *Server) CA() string { return s.ca }

// TLSAddr is the first address TLS is served on, "" for none.
func (s *Server) TLSAddr() string { return first(s.secure) }

// Addr is the first address plaintext is served on, "" for none.
func (s *Server) Addr() string { return first(s.plain) }

// ChattyAddr is where the server that speaks no HTTP listens, "" for none.
func (s *Server) ChattyAddr() string {
	if s.chatty == nil {
		return ""
	}
	return s.chatty.Addr().String()
}

func first(ls []net.Listener) string {
	if len(ls) == 0 {
		return ""
	}
	return ls[0].Addr().String()
}

// LedgerPath is the file to which each call is added, JSON Lines.
func (s *Server) LedgerPath() string { return s.file.Name() }

// Ledger is what was served so far.
func (s *Server) Ledger() *Ledger { return &s.ledger }

// Close ends every connection and returns when nothing of the server runs.
func (s *Server) Close() error {
	s.cancel()
	for _, l := range append(append([]net.Listener{}, s.secure...), s.plain...) {
		l.Close()
	}
	if s.chatty != nil {
		s.chatty.Close()
	}
	if s.hand != nil {
		s.hand.Close()
		s.h1.Close()
	}
	s.live.Lock()
	s.closing = true
	open := slices.Collect(maps.Keys(s.conns))
	s.live.Unlock()
	for _, c := range open {
		c.Close()
	}
	s.wg.Wait()
	err := s.ledger.Err()
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
	}
	return err
}

// accept runs serve on its own goroutine for each connection of l.
func (s *Server) accept(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Warn("accept", "err", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.wg.Go(func() { serve(c) })
	}
}

// track makes a counted connection of c, or returns nil when the server closes.
func (s *Server) track(c net.Conn) *countedConn {
	cc := &countedConn{Conn: c, id: s.connIDs.Add(1)}
	if s.cfg.Tap != nil {
		cc.Conn = s.cfg.Tap(cc.id, c)
	}
	s.live.Lock()
	defer s.live.Unlock()
	if s.closing {
		c.Close()
		return nil
	}
	s.conns[cc] = struct{}{}
	cc.gone = func() {
		s.live.Lock()
		delete(s.conns, cc)
		s.live.Unlock()
	}
	return cc
}

func (s *Server) serveTLS(raw net.Conn) {
	t := tls.Server(raw, s.tls)
	c := s.track(t)
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	err := t.HandshakeContext(ctx)
	cancel()
	if err != nil {
		s.log.Debug("TLS handshake", "addr", raw.RemoteAddr(), "err", err)
		c.Close()
		return
	}
	state := t.ConnectionState()
	c.tls, c.cipher = tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
	s.ledger.addConn(c)
	if state.NegotiatedProtocol == "h2" {
		s.serveHTTP2(c)
		return
	}
	s.hand.hand(c)
}

func (s *Server) servePlain(raw net.Conn) {
	c := s.track(raw)
	if c == nil {
		return
	}
	s.ledger.addConn(c)
	if c.startsWith([]byte("PRI ")) {
		s.serveHTTP2(c)
		return
	}
	s.hand.hand(c)
}

func (s *Server) serveHTTP2(c *countedConn) {
	defer c.Close()
	s.h2.ServeConn(c, &http2.ServeConnOpts{
		Context:    context.WithValue(s.ctx, connKey{}, c),
		BaseConfig: s.h1,
	})
}

// connKey is the context's key of a request's *countedConn.
type connKey struct{}

// chat answers a protocol that is no HTTP: the line "send N SIZE" is answered by N
// lines of SIZE bytes, any other line by itself.
func (s *Server) chat(c net.Conn) {
	cc := s.track(c)
	if cc == nil {
		return
	}
	s.ledger.addConn(cc)
	defer cc.Close()
	buf := make([]byte, 4096)
	var line []byte
	for {
		n, err := cc.Read(buf)
		for _, b := range buf[:n] {
			if line = append(line, b); b != '\n' && len(line) < 64<<10 {
				continue
			}
			if err := chatLine(cc, line); err != nil {
				return
			}
			line = line[:0]
		}
		if err != nil {
			return
		}
	}
}

func chatLine(w io.Writer, line []byte) error {
	var n, size int
	if _, err := fmt.Sscanf(string(line), "send %d %d", &n, &size); err != nil || n < 0 || size < 1 || size > 1<<20 {
		_, err := w.Write(line)
		return err
	}
	out := make([]byte, size)
	for i := range out {
		out[i] = 'a' + byte(i%26)
	}
	out[size-1] = '\n'
	for range n {
		if _, err := w.Write(out); err != nil {
			return err
		}
	}
	return nil
}
