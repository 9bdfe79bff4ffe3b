package jsonl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/recordtest"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/export/jsonl"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

var update = flag.Bool("update", false, "rewrite testdata")

func priced(r *account.Record) {
	r.Price = pricing.Price{Source: "list", Version: "2026-08-01", HasSavings: true}
}

// vectors are records whose lines stand in testdata/lines.txtar.
var vectors = []struct {
	name   string
	record *account.Record
}{
	{"stream", recordtest.New(priced)},
	{"pod", recordtest.New(priced, func(r *account.Record) {
		r.Owner = attribution.Owner{
			PID: 7, Executable: "node", ContainerID: strings.Repeat("ab", 32), ContainerRuntime: "containerd", ContainerName: "web", PodUID: "u-1", PodName: "web-1",
			Namespace: "shop", NodeName: "n1", Workload: map[string]string{"k8s.replicaset.name": "web-5f", "k8s.deployment.name": "web"},
			PodLabels: map[string]string{"lora": "x"}, ServiceName: "web", ServiceNamespace: "shop",
			ServiceVersion: "2", ServiceInstanceID: "shop.web-1.web", Attributes: map[string]string{"team": "search", "deployment.environment.name": "prod"},
			Baggage: map[string]string{"tollwire.node": "n"}, Graph: "g", Node: "n",
			NodeSource: "pod_label", Tenant: "t", Session: "s", Complete: true,
		}
		r.Relay = account.RelayPayer
		r.Origin = &attribution.Owner{Graph: "outer", Node: "caller", NodeSource: "header", Tenant: "t2"}
	})},
	{"container", recordtest.New(priced, func(r *account.Record) {
		r.Owner.ContainerID, r.Owner.ContainerRuntime, r.Owner.RuntimeName = strings.Repeat("cd", 32), "docker", "web-1"
	})},
	{"classes", recordtest.New(func(r *account.Record) {
		r.Call.Usage = llm.Usage{}
		for c := range llm.NumClasses {
			r.Call.Usage.Set(c, float64(c)+1)
		}
		r.Call.Usage.Set(llm.Seconds, 1.25)
		r.Call.Disagreement = "total is not the sum"
		r.Price.Unpriced, r.Price.Version = "unknown_model", "2026-08-01"
	})},
	{"zero stated", recordtest.New(func(r *account.Record) {
		r.Call.Usage = llm.Usage{}
		r.Call.Usage.Set(llm.CacheRead, 0)
		r.Call.Usage.Set(llm.Output, 0)
	})},
	{"no times", recordtest.New(func(r *account.Record) {
		r.Time, r.Call.Times = time.Time{}, llm.Times{Chunks: 3}
		for range 3 {
			r.Call.Times.Gaps.Add(0)
		}
		r.Call.Source, r.Call.SourceID = flow.SourceReplay, "corpus:file#3"
	})},
	{"error", recordtest.New(func(r *account.Record) {
		c := r.Call
		c.Usage, c.Completeness, c.UsageSource, c.ResponseModel, c.ResponseID, c.FinishReasons = llm.Usage{}, llm.Missing, "", "", "", nil
		c.Status, c.ErrorType, c.Times = 429, "rate_limit_error", llm.Times{Start: c.Times.Start, FirstByte: c.Times.FirstByte, End: c.Times.FirstByte + 1}
		r.Price.Unpriced = "usage_missing"
	})},
	{"tools, limits, second try", recordtest.New(func(r *account.Record) {
		c := r.Call
		c.ServiceTier, c.ToolCalls, c.Quality, c.FinishReasons = "priority", []string{"weather", "clock"}, []string{"arguments_invalid"}, []string{"tool_calls"}
		c.RetryCount, c.RetryGroup = 1, strings.Repeat("0f", 16)
		c.RateLimit = map[string]string{"x-ratelimit-remaining-tokens": "149984", "retry-after": "2"}
	})},
	{"mcp", recordtest.New(func(r *account.Record) {
		r.Call.Operation, r.Call.MCP = "execute_tool", llm.MCP{Method: "tools/call", Tool: "weather", Session: "s-1"}
	})},
	{"partial", recordtest.New(recordtest.Server(9), func(r *account.Record) {
		r.Call.Partial, r.Call.LostBytes, r.Call.Completeness, r.Call.UsageSource = llm.PartialLost, 4096, llm.Estimated, llm.SourceStreamPartial
		r.Relay, r.Counted, r.Trace.Source = account.RelayHop, false, "header"
	})},
	{"hostile", recordtest.New(func(r *account.Record) {
		r.Call.RequestModel = "a\"\\\n\x00\x7f\xff\u2028é"
		r.Call.ErrorType = "\xf0\x9f"
	})},
	{"api", recordtest.New(recordtest.API("geocoder"), func(r *account.Record) { r.Price = pricing.Price{Source: "override", Version: "2026-08-01"} })},
	{"nothing", &account.Record{Call: &llm.Call{}}},
}

func TestLines(t *testing.T) {
	const file = "testdata/lines.txtar"
	got := &txtar.Archive{Comment: []byte("Records as lines. go test -update rewrites this file.\n")}
	for _, v := range vectors {
		got.Files = append(got.Files, txtar.File{Name: v.name, Data: jsonl.Append(nil, v.record)})
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(want.Files) != len(got.Files) {
		t.Fatalf("%d vectors, %s has %d: run with -update", len(got.Files), file, len(want.Files))
	}
	for i, w := range want.Files {
		if g := got.Files[i]; g.Name != w.Name || !bytes.Equal(g.Data, w.Data) {
			t.Errorf("%s\ngot  %swant %s", g.Name, g.Data, w.Data)
		}
	}
}

// Every key that a record may have stands in the contract, but for our additions, and
// none is null.
func TestKeysAreFlatAndKnown(t *testing.T) {
	additions := []string{"tollwire.api", "tollwire.service_tier", "tollwire.tool_calls", "tollwire.quality", "tollwire.retry.group",
		"mcp.method.name", "gen_ai.tool.name", "http.request.resend_count", "http.response.header.retry-after", "http.response.header.x-ratelimit-remaining-tokens",
		"container.name", "container.runtime.name", "service.version", "service.instance.id", "team", "deployment.environment.name", "tollwire.baggage.tollwire.node"}
	contract, err := os.ReadFile("../../../shared/RECORD.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		var m map[string]any
		line := jsonl.Append(nil, v.record)
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		if bytes.Count(line, []byte{'\n'}) != 1 {
			t.Errorf("%s: more than one line", v.name)
		}
		for k, val := range m {
			if !strings.HasPrefix(k, "k8s.") && !bytes.Contains(contract, []byte(k)) && !slices.Contains(additions, k) {
				t.Errorf("%s: %s is not in RECORD.md", v.name, k)
			}
			if val == nil || val == "" {
				t.Errorf("%s: %s has no value", v.name, k)
			}
		}
	}
}

func TestNoTimesNoTimingKeys(t *testing.T) {
	for _, v := range vectors {
		if v.name != "no times" {
			continue
		}
		line := string(jsonl.Append(nil, v.record))
		for _, k := range []string{`"time"`, "time_to", "duration", "gap_", "time_per"} {
			if strings.Contains(line, k) {
				t.Errorf("%s in %s", k, line)
			}
		}
	}
}

func TestParseReadsBackWhatAppendWrote(t *testing.T) {
	r := vectors[1].record
	l, err := jsonl.Parse(jsonl.Append(nil, r))
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case !l.Time.Equal(r.Time), l.Role != "client", l.RequestModel != r.Call.RequestModel, !slices.Equal(l.FinishReasons, r.Call.FinishReasons):
		t.Errorf("%+v", l)
	case *l.InputTokens != 1200, *l.OutputTokens != 42, *l.CacheReadTokens != 1000, l.ReasoningTokens != nil, l.Usage["cache_read"] != 1000:
		t.Errorf("usage %+v", l)
	case *l.FirstContent != 0.25, *l.Duration != 0.355, l.CostUSD != "0", l.Graph != "outer", l.Kubernetes["k8s.deployment.name"] != "web":
		t.Errorf("%+v", l)
	case !l.Counted():
		t.Error("a payer counts")
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	r, buf := recordtest.New(), make([]byte, 0, 8<<10)
	n := testing.AllocsPerRun(100, func() { buf = jsonl.Append(buf[:0], r) })
	if n > 0 {
		t.Errorf("%v allocations a record", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	r, buf := recordtest.New(priced), make([]byte, 0, 8<<10)
	b.ReportAllocs()
	for b.Loop() {
		buf = jsonl.Append(buf[:0], r)
	}
	b.SetBytes(int64(len(buf)))
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors {
		f.Add(jsonl.Append(nil, v.record))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := jsonl.Parse(b); (l == nil) == (err == nil) {
			t.Errorf("%v, %v", l, err)
		}
	})
}

func FuzzStrings(f *testing.F) {
	f.Add("a\"\\\n\x00\x7f\xff\u2028é")
	f.Fuzz(func(t *testing.T, s string) {
		r := recordtest.New(func(r *account.Record) { r.Call.RequestModel = s })
		l, err := jsonl.Parse(jsonl.Append(nil, r))
		if err != nil || l.RequestModel != strings.ToValidUTF8(s, "\uFFFD") && !strings.Contains(l.RequestModel, "\uFFFD") {
			t.Errorf("%q came back as %+v, %v", s, l, err)
		}
	})
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func id(i int) func(*account.Record) { return recordtest.ID(fmt.Sprint("r", i)) }

// read returns the ids in every file, in order.
func read(t *testing.T, path string) (ids []string, files []string) {
	t.Helper()
	files, err := jsonl.Files(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			if l, err := jsonl.Parse(line); err == nil { // not the torn ones
				ids = append(ids, l.ResponseID)
			}
		}
	}
	return ids, files
}

func TestFileRotatesBySizeBetweenLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls.jsonl")
	line := len(jsonl.Append(nil, recordtest.New(id(10))))
	cfg := jsonl.Config{Path: path, MaxBytes: int64(3*line + 10), Sync: jsonl.SyncAlways}
	for run := range 2 { // the second continues what the first left
		f, err := jsonl.Open(cfg, quiet())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			f.Export(recordtest.New(id(10 + 10*run + i)))
		}
		if err := f.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ids, files := read(t, path)
	if len(ids) != 20 || ids[0] != "r10" || ids[19] != "r29" || !slices.IsSorted(ids) {
		t.Errorf("read %v", ids)
	}
	if len(files) != 7 {
		t.Errorf("%d files, want 7", len(files))
	}
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil || info.Size() > cfg.MaxBytes || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestFileKeepsTheNewestAndRotatesByAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls.jsonl")
	f, err := jsonl.Open(jsonl.Config{Path: path, MaxAge: time.Nanosecond, Keep: 2, SyncEvery: 5 * time.Millisecond}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		before := f.Stats().Written
		f.Export(recordtest.New(id(i)))
		rotated := func() bool {
			info, err := os.Stat(path)
			return err == nil && info.Size() == 0 && f.Stats().Written > before
		}
		for deadline := time.Now().Add(10 * time.Second); !rotated(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("not rotated")
			}
		}
	}
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ids, files := read(t, path); len(files) != 3 || !slices.Equal(ids, []string{"r4", "r5"}) {
		t.Errorf("%v in %v", ids, files)
	}
}

func TestFileGoesOnAfterATornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls.jsonl")
	whole := jsonl.Append(nil, recordtest.New(id(1)))
	if err := os.WriteFile(path, append(whole, whole[:100]...), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := jsonl.Open(jsonl.Config{Path: path}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	f.Export(recordtest.New(id(2)))
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ids, _ := read(t, path); !slices.Equal(ids, []string{"r1", "r2"}) {
		t.Errorf("read %v", ids)
	}
}

// stuck blocks every write until it is let go.
type stuck struct {
	free chan struct{}
	n    int
}

func (s *stuck) Write(b []byte) (int, error) {
	<-s.free
	s.n += bytes.Count(b, []byte{'\n'})
	return len(b), nil
}

func TestSlowDiskDropsAndCounts(t *testing.T) {
	w := &stuck{free: make(chan struct{})}
	f, err := jsonl.Open(jsonl.Config{Path: "-", Stdout: w, Buffer: 20_000}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		f.Export(recordtest.New(id(i)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := f.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close while stuck: %v", err)
	}
	close(w.free)
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	st := f.Stats()
	if st.Dropped == 0 || int(st.Dropped)+w.n != 1000 {
		t.Errorf("%d written, %d dropped of 1000", w.n, st.Dropped)
	}
}

func TestFullDiskIsCounted(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	f, err := jsonl.Open(jsonl.Config{Path: "-", Stdout: full}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	f.Export(recordtest.New())
	if err := f.Close(t.Context()); err == nil || f.Stats().Dropped != 1 {
		t.Errorf("close: %v, %+v", err, f.Stats())
	}
}

// gate is told of every write how many bytes it takes; one that takes less than it is
// given fails.
type gate struct {
	entered chan []byte
	take    chan int
}

func (w *gate) Write(b []byte) (int, error) {
	w.entered <- bytes.Clone(b)
	if n := <-w.take; n < len(b) {
		return n, errors.New("broken")
	}
	return len(b), nil
}

// What was written before an error is not dropped, and what failed once and went well
// later is no failure of Close.
func TestWriteErrorInTheMiddle(t *testing.T) {
	for _, torn := range []int{0, 5} { // bytes of the fourth line
		w := &gate{make(chan []byte), make(chan int)}
		f, err := jsonl.Open(jsonl.Config{Path: "-", Stdout: w}, quiet())
		if err != nil {
			t.Fatal(err)
		}
		f.Export(recordtest.New(id(0)))
		first := <-w.entered
		for i := range 10 {
			f.Export(recordtest.New(id(i)))
		}
		w.take <- len(first)
		if ten := <-w.entered; len(ten) != 10*len(first) {
			t.Fatalf("%d bytes, want ten lines of %d", len(ten), len(first))
		}
		f.Export(recordtest.New(id(0)))
		w.take <- 3*len(first) + torn
		closed := make(chan error)
		go func() { closed <- f.Close(t.Context()) }()
		if torn > 0 {
			if b := <-w.entered; string(b) != "\n" {
				t.Errorf("%q goes on in a torn line", b)
			}
			w.take <- 1
		}
		<-w.entered
		w.take <- len(first)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if st := f.Stats(); st.Dropped != 7 || st.Failures != 1 {
			t.Errorf("%d bytes of the fourth line: %+v, want 7 of 10 dropped", torn, st)
		}
	}
}

// A file is as old as its first record, however often the agent was restarted.
func TestAgeOutlivesRestarts(t *testing.T) {
	for age, want := range map[time.Duration]int{3 * time.Hour: 2, 10 * time.Minute: 1} {
		path := filepath.Join(t.TempDir(), "calls.jsonl")
		old := recordtest.New(func(r *account.Record) { r.Time = time.Now().Add(-age) })
		if err := os.WriteFile(path, append(jsonl.Append(nil, old), jsonl.Append(nil, recordtest.New())...), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := jsonl.Open(jsonl.Config{Path: path, MaxAge: time.Hour}, quiet())
		if err != nil {
			t.Fatal(err)
		}
		f.Export(recordtest.New())
		if err := f.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if files, err := jsonl.Files(path); err != nil || len(files) != want {
			t.Errorf("%v old: %v, %v", age, files, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := jsonl.Open(jsonl.Config{Path: "/nowhere/at/all"}, quiet()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := jsonl.Open(jsonl.Config{Path: "-", Sync: "often"}, quiet()); err == nil {
		t.Error("sync: often was taken")
	}
}

func TestShow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls.jsonl")
	var b []byte
	b = jsonl.Append(b, recordtest.New(priced, func(r *account.Record) { r.Relay = account.RelayOrigin }))
	b = jsonl.Append(b, recordtest.New(priced, recordtest.Move(time.Millisecond), func(r *account.Record) {
		r.Relay, r.Call.ResponseModel = account.RelayPayer, "evil\x1b[2J"
	}))
	b = jsonl.Append(b, recordtest.New(recordtest.Move(time.Second), func(r *account.Record) { r.Price.Unpriced = "unknown_model" }))
	b = jsonl.Append(b, recordtest.New(func(r *account.Record) { r.Trace.TraceID = strings.Repeat("1", 32) }))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := jsonl.Show(&out, []string{path}, recordtest.New().Trace.TraceID); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	if !strings.Contains(got, "2 calls, 2400 tokens in, 84 out, 0 USD and 1 without a price (unknown_model)") || strings.Contains(got, "\x1b") {
		t.Errorf("%s", got)
	}
	t.Logf("\n%s", got)
	if err := jsonl.Show(io.Discard, []string{path}, strings.Repeat("2", 32)); !errors.Is(err, jsonl.ErrNoTrace) {
		t.Errorf("got %v", err)
	}
}
