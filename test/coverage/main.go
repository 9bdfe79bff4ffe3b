// Command coverage runs every client that can be had on this machine against the
// provider simulator, with and without the agent, holds what the agent says to the
// simulator's ledger, and writes the table of docs/coverage.md. It needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/tollwire/tollwire/probes/signature"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out := flag.String("out", "docs/coverage.md", "the table")
	only := flag.String("only", "", "names of programs, separated by commas: only these are run, and no table is written")
	rounds := flag.Int("rounds", 3, "runs of each program, with and without the agent")
	bin := flag.String("bin", "bin", "folder with tollwire and llmsim")
	flag.Parse()
	if err := coverage(ctx, *bin, *out, *only, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "coverage:", err)
		os.Exit(1)
	}
}

func coverage(ctx context.Context, bin, out, only string, rounds int) error {
	if os.Geteuid() != 0 {
		return errors.New("probes need root; run it by make coverage, or with sudo")
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	all := table()
	if only != "" {
		names := strings.Split(only, ",")
		all = slices.DeleteFunc(all, func(p *program) bool { return !slices.Contains(names, p.name) })
	}
	ready, err := install(ctx, all, cache)
	if err != nil {
		return err
	}
	b := &bench{agent: filepath.Join(bin, "tollwire"), llmsim: filepath.Join(bin, "llmsim"), rounds: rounds}
	rows, err := b.run(ctx, ready)
	if err != nil {
		return err
	}
	set, err := signature.Published()
	if err != nil {
		return err
	}
	if only == "" {
		if err := os.WriteFile(out, report(rows, set), 0o644); err != nil {
			return err
		}
	} else {
		os.Stdout.Write(report(rows, set))
	}
	bad, closing := verdict(rows)
	for _, line := range bad {
		fmt.Println("coverage:", line)
	}
	fmt.Println(closing)
	if bad != nil {
		os.Exit(1)
	}
	return nil
}

// cacheDir keeps what is downloaded, outside of the checkout.
func cacheDir() (string, error) {
	if dir := os.Getenv("TOLLWIRE_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "tollwire"), err
}
