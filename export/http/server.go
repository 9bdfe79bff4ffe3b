// Package http serves what the agent knows, read-only: the scrape, health, and a few
// lists as JSON. TLS, client certificates and passwords come from a web
// configuration file in the format of Prometheus' exporters; a bearer token from a
// file of its own. It never serves a request's or a response's content.
package http

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/net/netutil"
)

// Config says what is served, where, and to whom.
type Config struct {
	Listen []string // host:port; port 0 picks one
	// WebConfig is the path of a web configuration (TLS, client certificates,
	// basic_auth_users); "" is plain HTTP.
	WebConfig string
	// TokenFile is the path of a bearer token that all but the health pages ask for; it
	// is read anew for every request, so that a mounted secret may turn. "" asks for none.
	TokenFile string
	Metrics   http.Handler
	// Ready says why the agent is not ready; nil when it is.
	Ready func() error
	// Lists are served as JSON at /api/v1/NAME.
	Lists map[string]func() any
	// Connections bounds those open at once, on each address. 0 means 64.
	Connections int
	Logger      *slog.Logger
}

// Server listens from New on and answers from Serve on.
type Server struct {
	cfg       Config
	http      *http.Server
	listeners []net.Listener
}

// New binds every address.
func New(cfg Config) (*Server, error) {
	cfg.Connections = cmp.Or(cfg.Connections, 64)
	s := &Server{cfg: cfg}
	if cfg.WebConfig != "" {
		if err := web.Validate(cfg.WebConfig); err != nil {
			return nil, fmt.Errorf("read web configuration: %w", err)
		}
	}
	if cfg.TokenFile != "" {
		if _, err := token(cfg.TokenFile); err != nil {
			return nil, err
		}
	}
	for _, addr := range cfg.Listen {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen: %w", err), s.closeListeners())
		}
		if host := l.Addr().(*net.TCPAddr).IP; !host.IsLoopback() && cfg.WebConfig == "" && cfg.TokenFile == "" {
			cfg.Logger.Warn("anyone who reaches this address can read the agent's metrics", "address", l.Addr().String())
		}
		s.listeners = append(s.listeners, netutil.LimitListener(l, cfg.Connections))
	}
	s.http = &http.Server{
		Handler:           s.guard(s.routes()),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute, // longer than a scrape interval
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Addrs are the addresses that are listened on.
func (s *Server) Addrs() []net.Addr {
	var a []net.Addr
	for _, l := range s.listeners {
		a = append(a, l.Addr())
	}
	return a
}

// Serve answers until Close; it returns nil then.
func (s *Server) Serve() error {
	systemd := false
	err := web.ServeMultiple(s.listeners, s.http, &web.FlagConfig{
		WebListenAddresses: &s.cfg.Listen, WebSystemdSocket: &systemd, WebConfigFile: &s.cfg.WebConfig,
	}, s.cfg.Logger)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}

// Close stops listening and waits for requests under way until ctx ends.
func (s *Server) Close(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop serving: %w", err), s.http.Close())
	}
	_ = s.closeListeners() // those that Serve never got
	return nil
}

func (s *Server) closeListeners() error {
	var err error
	for _, l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.authorized(s.cfg.Metrics))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s.cfg.Ready != nil {
			if err := s.cfg.Ready(); err != nil {
				http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ready")
	})
	for name, list := range s.cfg.Lists {
		mux.Handle("GET /api/v1/"+name, s.authorized(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			if err := e.Encode(list()); err != nil {
				s.cfg.Logger.Debug("write list", "name", name, "err", err)
			}
		})))
	}
	return mux
}

// guard holds for every page: nothing is read, nothing is kept by a cache.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 0)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// authorized asks for the bearer token, when there is one.
func (s *Server) authorized(next http.Handler) http.Handler {
	if s.cfg.TokenFile == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want, err := token(s.cfg.TokenFile)
		if err != nil {
			s.cfg.Logger.Error("check bearer token", "err", err)
			http.Error(w, "the token cannot be checked", http.StatusInternalServerError)
			return
		}
		got, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if sum := sha256.Sum256([]byte(got)); subtle.ConstantTimeCompare(sum[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// token returns the hash of the token in the file.
func token(path string) (sum [sha256.Size]byte, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return sum, fmt.Errorf("read bearer token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if t == "" {
		return sum, fmt.Errorf("read bearer token: %s is empty", path)
	}
	return sha256.Sum256([]byte(t)), nil
}
