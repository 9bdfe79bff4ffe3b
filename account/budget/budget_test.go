package budget

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

func usd(t testing.TB, s string) pricing.Money {
	t.Helper()
	m, err := pricing.ParseMoney(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// record is a counted call of a graph's node.
func record(t testing.TB, when time.Time, graph, node, model, cost string) *account.Record {
	t.Helper()
	r := &account.Record{
		Time: when, Counted: true,
		Call:  &llm.Call{Provider: "openai", ResponseModel: model},
		Owner: attribution.Owner{Graph: graph, Node: node},
	}
	if cost == "" {
		r.Price.Unpriced = pricing.ReasonUnknownModel
	} else {
		r.Price.USD, r.Price.Source = usd(t, cost), pricing.SourceList
	}
	return r
}

// clock is a time that a test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func open(t testing.TB, c Config, now *clock) (*Ledger, *strings.Builder) {
	t.Helper()
	var log strings.Builder
	l, err := openAt(c, slog.New(slog.NewTextHandler(&log, nil)), now.now)
	if err != nil {
		t.Fatal(err)
	}
	return l, &log
}

func date(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestSpending(t *testing.T) {
	now := &clock{date("2026-06-10T12:00:00Z")}
	l, log := open(t, Config{Budgets: []Budget{
		{Name: "all", Per: "month", Limit: usd(t, "100")},
		{Name: "graphs", Per: "day", By: "graph", Limit: usd(t, "10")},
		{Name: "dear", Per: "hour", Match: Match{Model: "*opus*", Graph: "sh*p"}, Limit: usd(t, "1")},
	}}, now)
	l.Add(record(t, now.t, "shop", "search", "claude-opus-5", "0.4"))
	l.Add(record(t, now.t, "shop", "answer", "gpt-5", "4.6"))
	l.Add(record(t, now.t, "mail", "", "claude-opus-5", "1"))
	l.Add(record(t, now.t, "", "", "gpt-5", "1"))
	l.Add(record(t, now.t, "shop", "", "new-model", ""))
	twin := record(t, now.t, "shop", "", "gpt-5", "50")
	twin.Counted = false // the other end of a call that was counted
	l.Add(twin)

	want := []string{
		"all 7 of 100, 5 calls, 1 unpriced",
		"graphs/mail 1 of 10, 1 calls, 0 unpriced",
		"graphs/shop 5 of 10, 3 calls, 1 unpriced",
		"dear 0.4 of 1, 1 calls, 0 unpriced",
	}
	got := l.States()
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, s := range got {
		if line := fmt.Sprintf("%s %s of %s, %d calls, %d unpriced", s.Label(), s.Spent, s.Limit, s.Calls, s.Unpriced); line != want[i] {
			t.Errorf("%s, want %s", line, want[i])
		}
		if s.Scope != "node" {
			t.Error("a node's budget says so")
		}
	}
	// 7 % of the limit in 9.5 of 30 days.
	if b := got[0].BurnRate; b < 0.2210 || b > 0.2211 {
		t.Errorf("burn rate %v", b)
	}
	if strings.Count(log.String(), "budget threshold passed") != 1 || !strings.Contains(log.String(), "budget=graphs key=shop threshold=0.5") {
		t.Errorf("%s", log)
	}
	l.Add(record(t, now.t, "shop", "", "gpt-5", "6"))
	if s := log.String(); strings.Count(s, "budget threshold passed") != 3 || !strings.Contains(s, "level=ERROR msg=\"budget threshold passed\" scope=node budget=graphs key=shop threshold=1 spent_usd=11 limit_usd=10") {
		t.Errorf("%s", s)
	}
}

func TestPeriods(t *testing.T) {
	now := &clock{date("2026-06-30T23:59:59Z")}
	l, log := open(t, Config{Budgets: []Budget{
		{Name: "month", Per: "month", Limit: usd(t, "10")},
		{Name: "day", Per: "day", Zone: "Asia/Tokyo", Limit: usd(t, "10")},
		{Name: "hour", Per: "hour", Limit: usd(t, "10")},
	}}, now)
	state := func() (out []string) {
		for _, s := range l.States() {
			out = append(out, fmt.Sprintf("%s %s %s", s.Spent, s.Previous, s.Start.UTC().Format("01-02T15")))
		}
		return out
	}
	check := func(want ...string) {
		t.Helper()
		if got := state(); strings.Join(got, ", ") != strings.Join(want, ", ") {
			t.Errorf("%q, want %q", got, want)
		}
	}
	l.Add(record(t, now.t, "", "", "m", "6"))
	check("6 0 06-01T00", "6 0 06-30T15", "6 0 06-30T23")

	// A call that began in June and ended in July is June's.
	began := now.t
	now.t = date("2026-07-01T00:00:30Z")
	l.Add(record(t, began, "", "", "m", "1"))
	l.Add(record(t, now.t, "", "", "m", "2"))
	check("2 7 07-01T00", "9 0 06-30T15", "2 7 07-01T00")
	// One that began long ago is nobody's.
	l.Add(record(t, began.Add(-100*24*time.Hour), "", "", "m", "5"))
	check("2 7 07-01T00", "9 0 06-30T15", "2 7 07-01T00")
	// Thresholds are passed anew in a new period.
	l.Add(record(t, now.t, "", "", "m", "4"))
	if n := strings.Count(log.String(), "budget=month key=\"\" threshold=0.5"); n != 2 {
		t.Errorf("%d times\n%s", n, log)
	}
	// A period without a call lies between: what was spent before is forgotten.
	now.t = date("2026-09-01T00:00:00Z")
	check("0 0 09-01T00", "0 0 08-31T15", "0 0 09-01T00")
	if b := l.States()[0].BurnRate; b != 0 {
		t.Error(b)
	}
	// A record without a time, or from a clock that runs ahead, is of now.
	l.Add(record(t, time.Time{}, "", "", "m", "1"))
	l.Add(record(t, now.t.Add(time.Hour), "", "", "m", "1"))
	check("2 0 09-01T00", "2 0 08-31T15", "2 0 09-01T00")
}

func TestRestart(t *testing.T) {
	now := &clock{date("2026-06-10T12:00:00Z")}
	c := Config{File: filepath.Join(t.TempDir(), "budgets.json"), Budgets: []Budget{
		{Name: "all", Per: "month", Limit: usd(t, "10")},
		{Name: "graphs", Per: "day", By: "graph", Limit: usd(t, "10")},
	}}
	l, _ := open(t, c, now)
	l.Add(record(t, now.t, "shop", "", "m", "5.123456789012345678901"))
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprintf("%+v", l.States())

	l, log := open(t, c, now)
	if after := fmt.Sprintf("%+v", l.States()); after != before {
		t.Errorf("%s\nwant %s", after, before)
	}
	l.Add(record(t, now.t, "shop", "", "m", "0.1"))
	if strings.Contains(log.String(), "threshold") {
		t.Errorf("a threshold that was passed before the restart: %s", log)
	}

	// The next day keeps the month and turns the day.
	now.t = now.t.Add(24 * time.Hour)
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	l, _ = open(t, c, now)
	if s := l.States(); s[0].Spent != usd(t, "5.223456789012345678901") || !s[1].Spent.IsZero() || s[1].Previous != s[0].Spent {
		t.Errorf("%+v", s)
	}

	// A budget that has another period now begins anew; a file from the future is not believed.
	c.Budgets[0].Per = "day"
	l, _ = open(t, c, now)
	if s := l.States(); !s[0].Spent.IsZero() {
		t.Errorf("%+v", s)
	}
	now.t = now.t.Add(-48 * time.Hour)
	l, _ = open(t, c, now)
	if s := l.States(); len(s) != 1 || !s[0].Spent.IsZero() {
		t.Errorf("%+v", s)
	}
}

func TestBrokenFile(t *testing.T) {
	now := &clock{date("2026-06-10T12:00:00Z")}
	file := filepath.Join(t.TempDir(), "budgets.json")
	c := Config{File: file, Budgets: []Budget{{Name: "all", Per: "month", Limit: usd(t, "10")}}}
	for _, content := range []string{"", "{", `{"version": 9}`, `{"version":1,"lines":[{"spent_usd":"x"}]}`} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		l, log := open(t, c, now)
		if !l.States()[0].Spent.IsZero() || !strings.Contains(log.String(), "budgets begin anew") {
			t.Errorf("%q: %s", content, log)
		}
		if kept, err := os.ReadFile(file + ".bad"); err != nil || string(kept) != content {
			t.Errorf("%q is kept aside: %q, %v", content, kept, err)
		}
	}
	// Lines that cannot be are left out.
	if err := os.WriteFile(file, []byte(`{"version":1,"lines":[{"budget":"all","period":"month","start":"2026-06-01T00:00:00Z","spent_usd":"-5","previous_usd":"0"},{"budget":"gone","period":"day"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, _ := open(t, c, now); !l.States()[0].Spent.IsZero() || len(l.States()) != 1 {
		t.Error("taken")
	}
	c.File = filepath.Join(t.TempDir(), "no", "such", "folder", "b.json")
	l, _ := open(t, c, now)
	l.Add(record(t, now.t, "", "", "m", "1"))
	if l.Save() == nil || l.Save() == nil {
		t.Error("a file that cannot be written is an error until it can")
	}
}

func TestKeysAreBounded(t *testing.T) {
	now := &clock{date("2026-06-10T12:00:00Z")}
	l, _ := open(t, Config{Budgets: []Budget{{Name: "models", Per: "day", By: "model", Limit: usd(t, "1000")}}}, now)
	for i := range 2 * maxKeys {
		l.Add(record(t, now.t, "", "", fmt.Sprintf("m%d", i), "1"))
	}
	s := l.States()
	if len(s) != maxKeys+1 {
		t.Fatal(len(s))
	}
	for _, x := range s {
		if x.Key == account.Other && x.Spent == usd(t, "1000") {
			return
		}
	}
	t.Error("what found no room is not in other")
}

// TestKeysMakeRoom: names that somebody made up take lines from nobody for longer than
// they are called by, and a restart brings none of them back.
func TestKeysMakeRoom(t *testing.T) {
	for _, restart := range []bool{false, true} {
		now := &clock{date("2026-06-10T12:00:00Z")}
		c := Config{File: filepath.Join(t.TempDir(), "b.json"), Budgets: []Budget{
			{Name: "models", Per: "day", By: "model", Limit: usd(t, "10")}, {Name: "all", Per: "day", Limit: usd(t, "10")},
		}}
		l, _ := open(t, c, now)
		l.Add(record(t, now.t, "", "", "gpt-5", "3"))
		for i := range 2 * maxKeys {
			l.Add(record(t, now.t, "", "", fmt.Sprintf("no-such-model-%d", i), ""))
		}
		again := func() {
			if err := l.Save(); err != nil {
				t.Fatal(err)
			}
			if restart {
				l, _ = open(t, c, now)
			}
		}
		again()
		if n := len(l.States()); n != maxKeys+2 {
			t.Fatalf("%d lines", n)
		}
		now.t = now.t.Add(24 * time.Hour)
		again()
		l.Add(record(t, now.t, "", "", "claude", "6"))
		var got []string
		for _, s := range l.States() {
			got = append(got, fmt.Sprintf("%s %s, before %s", s.Label(), s.Spent, s.Previous))
		}
		if want := "models/claude 6, before 0; models/gpt-5 0, before 3; all 6, before 3"; strings.Join(got, "; ") != want {
			t.Errorf("restart %v: %q", restart, got)
		}
		// Two periods later the file holds them no more.
		now.t = now.t.Add(48 * time.Hour)
		l.Add(record(t, now.t, "", "", "claude", "1"))
		again()
		if data, err := os.ReadFile(c.File); err != nil || strings.Contains(string(data), "gpt-5") || !strings.Contains(string(data), "claude") {
			t.Errorf("restart %v: %s, %v", restart, data, err)
		}
	}
}

// TestKeysAreLabels: what no label can hold has no line of its own.
func TestKeysAreLabels(t *testing.T) {
	now := &clock{date("2026-06-10T12:00:00Z")}
	l, _ := open(t, Config{Budgets: []Budget{{Name: "models", Per: "day", By: "model", Limit: usd(t, "10")}}}, now)
	for _, model := range []string{"gpt\xff", "gpt\xfe", "gpt\n", strings.Repeat("prompt ", 100), "größe"} {
		l.Add(record(t, now.t, "", "", model, "1"))
	}
	if s := l.States(); len(s) != 2 || s[0].Key != "größe" || s[1].Key != account.Other || s[1].Spent != usd(t, "4") {
		t.Errorf("%+v", s)
	}
}

func TestRefusedConfigs(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	good := Budget{Name: "b", Per: "day", Limit: usd(t, "1")}
	for name, change := range map[string]func(*Budget){
		"no name":   func(b *Budget) { b.Name = "" },
		"period":    func(b *Budget) { b.Per = "week" },
		"by":        func(b *Budget) { b.By = "colour" },
		"limit":     func(b *Budget) { b.Limit = pricing.Money{} },
		"zone":      func(b *Budget) { b.Zone = "Mars/Base" },
		"threshold": func(b *Budget) { b.Thresholds = []float64{0} },
	} {
		b := good
		change(&b)
		if _, err := Open(Config{Budgets: []Budget{b}}, log); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := Open(Config{Budgets: []Budget{good, good}}, log); err == nil {
		t.Error("twice")
	}
}

// TestRun: what is added while the file is written is in it too.
func TestRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.json")
	l, err := Open(Config{File: file, Save: time.Millisecond, Budgets: []Budget{{Name: "all", Per: "month", Limit: usd(t, "10")}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running, adding sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	for range 4 {
		adding.Go(func() {
			for range 100 {
				l.Add(record(t, time.Now(), "", "", "m", "0.01"))
				l.States()
			}
		})
	}
	adding.Wait()
	written := func() bool {
		data, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(data), `"spent_usd":"4"`)
	}
	for deadline := time.Now().Add(10 * time.Second); !written(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not written")
		}
	}
	cancel()
	running.Wait()
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "x", true}, {"x", "x", true}, {"x", "xy", false}, {"*", "", true}, {"a*", "ab/c", true}, {"*c", "ab/c", true},
		{"a*b*c", "a-b-c", true}, {"a*b*c", "acb", false}, {"ab*ba", "aba", false}, {"*opus*", "anthropic/claude-opus-5", true},
	} {
		if glob(c.pattern, c.s) != c.want {
			t.Errorf("glob(%q, %q)", c.pattern, c.s)
		}
	}
}

// FuzzFile: whatever stands in the file, a ledger opens and counts from nothing or
// from what it could read, never below zero.
func FuzzFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"lines":[{"budget":"all","period":"month","start":"2026-06-01T00:00:00Z","spent_usd":"5","previous_usd":"0","thresholds_passed":[0.5]}]}`))
	f.Add([]byte(`{"version":1,"lines":[{"budget":"graphs","key":"x","period":"day","start":"0001-01-01T00:00:00Z","spent_usd":"1e17","previous_usd":"1"}]}`))
	now := &clock{date("2026-06-10T12:00:00Z")}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := Config{File: filepath.Join(t.TempDir(), "b.json"), Budgets: []Budget{
			{Name: "all", Per: "month", Limit: usd(t, "10")}, {Name: "graphs", Per: "day", By: "graph", Limit: usd(t, "10")},
		}}
		if err := os.WriteFile(c.File, data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, _ := open(t, c, now)
		l.Add(record(t, now.t, "x", "", "m", "1"))
		for _, s := range l.States() {
			if s.Spent.Sign() < 0 || s.Previous.Sign() < 0 {
				t.Fatalf("%+v", s)
			}
		}
		if err := l.Save(); err != nil {
			t.Fatal(err)
		}
	})
}
