// Command ciphertap has published programs with stripped TLS inside call the provider
// simulator, four at once, and holds what the agent saw of it to the simulator's
// ledger. It needs root, npm and, the first time, the network.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tollwire/tollwire/internal/programs"
	"github.com/tollwire/tollwire/internal/trial"
)

func main() {
	only := flag.String("only", "", "programs to run, by name or name-version, separated by commas; default all")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	ok, err := run(ctx, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ciphertap:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

const atOnce = 4

func run(ctx context.Context, only string) (ok bool, err error) {
	if os.Geteuid() != 0 {
		return false, errors.New("probes need root; run it by make test-cipher-tap")
	}
	cache, err := programs.Cache()
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "tollwire-ciphertap-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	exe, err := os.Executable()
	if err != nil {
		return false, err
	}
	bin := filepath.Dir(exe)
	var all []*programs.Installed
	for _, p := range programs.Published {
		if !wanted(p, only) {
			continue
		}
		in, err := p.Install(ctx, cache)
		if err != nil {
			return false, err
		}
		all = append(all, in)
	}
	llm, err := trial.StartSim(filepath.Join(bin, "llmsim"), filepath.Join(dir, "sim"))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, llm.Stop(syscall.SIGTERM)) }()
	agent, err := trial.StartAgent(ctx, filepath.Join(bin, "tollwire"), dir)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, agent.Stop(syscall.SIGTERM)) }()
	var tapped, calls, exact int
	var wrong []string
	for _, in := range all {
		began := time.Now()
		out, err := in.Try(ctx, agent, llm, atOnce)
		if err != nil {
			return false, err
		}
		if out.Tapped {
			tapped++
		}
		calls, exact, wrong = calls+out.Calls, exact+out.Exact, append(wrong, out.Wrong...)
		fmt.Printf("%-18v aead.%-10s %d calls, %d exact, %v\n", in, in.Library, out.Calls, out.Exact, time.Since(began).Round(100*time.Millisecond))
		for _, w := range out.Wrong {
			fmt.Println("  ", strings.ReplaceAll(w, "\n", "\n   "))
		}
	}
	m, err := agent.Scrape(ctx)
	if err != nil {
		return false, err
	}
	for _, source := range []string{"aead.boringssl", "aead.aws-lc"} {
		if lost := m.Sum("tollwire_capture_bytes_total", "source", source, "fate", "dropped"); lost != 0 {
			wrong = append(wrong, "lost")
			fmt.Printf("%s: %.0f bytes dropped\n", source, lost)
		}
	}
	fmt.Printf("cipher tap: %d binaries, %d matched, %d calls, %d exact\n", len(all), tapped, calls, exact)
	return len(wrong) == 0 && len(all) > 0 && tapped == len(all) && exact == calls, nil
}

func wanted(p programs.Program, only string) bool {
	for name := range strings.SplitSeq(only, ",") {
		if name == "" || name == p.Name || name == p.Name+"-"+p.Version {
			return true
		}
	}
	return false
}
