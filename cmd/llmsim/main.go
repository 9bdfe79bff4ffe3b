// Command llmsim simulates LLM providers on loopback, for tests, demonstrations
// and load: real TLS by a CA of its own, real framings, made-up or recorded
// content, and a ledger of what was truly served.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tollwire/tollwire/cmd/llmsim/sim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "llmsim:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "llmsim",
		Short:         "A simulator of LLM providers with a ledger of the truth",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(serveCommand())
	return root
}

// options are the flags of serve as they were given.
type options struct {
	cfg      sim.Config
	min, max string
	ciphers  []string
	plan     string
	verbose  bool
}

func serveCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "serve --dir DIR",
		Short: "Serve until SIGTERM",
		Long: `Serve answers provider APIs over TLS and plaintext until SIGTERM or SIGINT.

When it is ready it prints one line of JSON: {"ready":true,"pid":…,"tls_addr":…,
"addr":…,"chatty_addr":…,"ca":…,"ledger":…}. DIR then holds ca.pem (to be trusted
by clients), leaf.pem, leaf.key and ledger.jsonl, to which each call is added as it
ends. GET /_ledger and /_conns give the same over HTTP.

How a call is answered is its plan, a list of key=value separated by semicolons:
the default plan (--plan), overlaid by the request's query parameter llmsim=, and
by its header x-llmsim. The keys:

` + sim.Help() + `
With --har, a request whose method and path were recorded is answered with the
recorded responses in their order, in the pieces of content._chunks; the header
x-llmsim-entry: ID names one of them. A request with x-llmsim is not.`,
		Example: `  llmsim serve --dir /tmp/sim --plan 'rate=50;first=200ms'
  curl --cacert /tmp/sim/ca.pem https://127.0.0.1:PORT/v1/chat/completions \
    -H 'x-llmsim: tokens=100;cached=50' -d '{"model":"gpt-4o","stream":true,"messages":[]}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.cfg.Dir, "dir", "", "folder for the certificates and the ledger (required)")
	f.StringSliceVar(&o.cfg.TLSAddr, "tls-addr", []string{"127.0.0.1:0"}, "addresses to serve TLS on; - for none")
	f.StringSliceVar(&o.cfg.Addr, "addr", []string{"127.0.0.1:0"}, "addresses to serve plaintext on; - for none")
	f.StringVar(&o.cfg.Chatty, "chatty-addr", "", "address of a server of a chatty protocol that is not HTTP")
	f.StringVar(&o.cfg.Key, "key", "ecdsa", "kind of the certificates' keys: ecdsa, rsa")
	f.StringVar(&o.min, "tls-min", "1.2", "lowest TLS version: 1.0, 1.1, 1.2, 1.3")
	f.StringVar(&o.max, "tls-max", "1.3", "highest TLS version")
	f.StringSliceVar(&o.ciphers, "ciphers", nil, "TLS 1.2 cipher suites by name, e.g. TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")
	f.BoolVar(&o.cfg.NoHTTP2, "no-http2", false, "do not offer HTTP/2")
	f.StringVar(&o.plan, "plan", "", "default plan")
	f.StringArrayVar(&o.cfg.HAR, "har", nil, "answer from this HAR file (.har, .har.gz); may be repeated")
	f.BoolVar(&o.verbose, "verbose", false, "log connections and failures to stderr")
	cmd.MarkFlagRequired("dir")
	return cmd
}

// ready is the line that says where everything is.
type ready struct {
	Ready  bool   `json:"ready"`
	PID    int    `json:"pid"`
	TLS    string `json:"tls_addr,omitempty"`
	Plain  string `json:"addr,omitempty"`
	Chatty string `json:"chatty_addr,omitempty"`
	CA     string `json:"ca"`
	Ledger string `json:"ledger"`
}

func serve(ctx context.Context, o options, stdout, stderr io.Writer) error {
	cfg := o.cfg
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelDebug
	}
	cfg.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	var err1, err2, err3 error
	cfg.MinVersion, err1 = version(o.min)
	cfg.MaxVersion, err2 = version(o.max)
	cfg.CipherSuites, err3 = suites(o.ciphers)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if cfg.MinVersion > cfg.MaxVersion {
		return fmt.Errorf("--tls-min %s is above --tls-max %s", o.min, o.max)
	}
	plan := sim.DefaultPlan()
	if err := plan.Overlay(o.plan); err != nil {
		return fmt.Errorf("--plan: %w", err)
	}
	cfg.Plan = &plan
	s, err := sim.Start(cfg)
	if err != nil {
		return err
	}
	line := ready{true, os.Getpid(), s.TLSAddr(), s.Addr(), s.ChattyAddr(), s.CA(), s.LedgerPath()}
	if err := json.NewEncoder(stdout).Encode(line); err != nil {
		return errors.Join(err, s.Close())
	}
	<-ctx.Done()
	return s.Close()
}

func version(name string) (uint16, error) {
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		if tls.VersionName(v) == "TLS "+name {
			return v, nil
		}
	}
	return 0, fmt.Errorf("TLS version %q, want 1.0, 1.1, 1.2 or 1.3", name)
}

func suites(names []string) ([]uint16, error) {
	var ids []uint16
	var known []string
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		known = append(known, s.Name)
	}
next:
	for _, name := range names {
		for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			if s.Name == name {
				ids = append(ids, s.ID)
				continue next
			}
		}
		return nil, fmt.Errorf("cipher suite %q, want one of %s", name, strings.Join(known, ", "))
	}
	return ids, nil
}
