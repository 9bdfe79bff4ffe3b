package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/flow"
)

// TestReload: new rules come into force, a wrong file changes nothing and is logged
// once, what needs a restart is named.
func TestReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollwire.yaml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rule := func(node string) string {
		return "attribution:\n  rules:\n    - {name: me, node: " + node + ", match: {exe: \"*\"}}\n"
	}
	write(rule("before"))
	cmd := &cobra.Command{}
	cmd.Flags().String("config", path, "")
	defaults().flags(cmd.Flags())
	load := func() (*Config, error) { return loadConfig(cmd) }
	first, err := load()
	if err != nil {
		t.Fatal(err)
	}
	owners, err := attribution.New(first.Attribution)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	r := newReloader(path, first, load, owners.Reload, slog.New(slog.NewTextHandler(&logged, nil)))
	me := ownProcess(t)
	want := func(step, node string, reloads, refused uint64, says string) {
		t.Helper()
		logged.Reset()
		r.look()
		if got := owners.Owner(me, 0, attribution.Evidence{}).Node; got != node {
			t.Errorf("%s: booked to %q, want %q", step, got, node)
		}
		if r.reloads.Load() != reloads || r.errors.Load() != refused {
			t.Errorf("%s: %d reloads, %d errors, want %d, %d", step, r.reloads.Load(), r.errors.Load(), reloads, refused)
		}
		if says == "" && logged.Len() > 0 || !strings.Contains(logged.String(), says) {
			t.Errorf("%s: logged %q, want %q", step, logged.String(), says)
		}
	}
	want("as at start", "before", 0, 0, "")
	write(rule("after"))
	want("changed", "after", 1, 0, "rules=1")
	want("the same again", "after", 1, 0, "")
	write(rule("worse") + "capture: {rings: many}\n")
	want("wrong", "after", 1, 1, "rings")
	want("still wrong", "after", 1, 1, "")
	write("attribution:\n  rules:\n    - {name: me, node: x, match: {exe: \"re:(\"}}\n")
	want("a wrong rule", "after", 1, 2, ":3:")
	write(rule("late") + "capture: {rings: 3}\n")
	want("needs a restart", "late", 2, 2, "capture")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want("gone", "late", 2, 3, "no such file")
	want("still gone", "late", 2, 3, "")
	write(strings.ReplaceAll(rule("header"), "exe: \"*\"", "header: {x-new: a}"))
	want("a header that nothing keeps", owners.Owner(me, 0, attribution.Evidence{}).Executable, 3, 3, "x-new")
	write(rule("baggage") + "  baggage: [user.tier]\n")
	want("baggage that nothing keeps", "baggage", 4, 3, "baggage user.tier")
}

// ownProcess is the test's own process.
func ownProcess(t *testing.T) flow.Proc {
	t.Helper()
	p := flow.Proc{PID: uint32(os.Getpid())}
	if _, err := os.Stat("/proc/self/exe"); errors.Is(err, os.ErrNotExist) {
		t.Skip("needs /proc")
	}
	return p
}
