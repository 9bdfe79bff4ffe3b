package backends_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tollwire/tollwire/deploy/servers"
	"github.com/tollwire/tollwire/internal/clients"
)

// TestRealBackends: the agent's spans and measures go through the Collector that is
// shipped, to Jaeger and Prometheus 3, which scrapes the agent as well, once for classic
// and once for native buckets.
func TestRealBackends(t *testing.T) {
	r := newRig(t, 9*time.Minute)
	program := func(name string) string { return filepath.Join(*full, name) }
	jaeger := startJaeger(t, program("jaeger"))
	collector := startCollector(t, program("collector"), jaeger.otlp)
	r.start(fmt.Sprintf(pricingConfig+"export: {metrics: {native: true}, otlp: {endpoint: \"grpc://%s\", queue: {dir: %s}, interval: 1s}}\n",
		collector.grpc, filepath.Join(r.dir, "queue")))
	r.out.files = append(r.out.files, collector.state)
	r.out.mustHold(collector.state, "Jaeger", "Prometheus 3")

	prometheus3 := program("prometheus3")
	am := r.alertmanager()
	buckets := r.prometheus(prometheus3, "127.0.0.1:1")
	spans := r.prometheus(prometheus3, am, "--enable-feature=native-histograms,exemplar-storage")
	behind := servers.StartPrometheus(t, prometheus3, fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n"+
		"  - {job_name: collector, honor_labels: true, static_configs: [{targets: [%q]}]}\n", collector.metrics))
	r.backends["Prometheus 3, classic"] = r.scraped(buckets, "tollwire", classic)
	r.backends["Prometheus 3, native"] = r.scraped(spans, "tollwire", native)
	r.backends["Prometheus 3, behind the Collector"] = r.scraped(behind, "tollwire", classic)
	r.backends["Jaeger"] = func() totals { return jaeger.spans(t) }

	r.clients(traffic())
	r.all()

	// Native buckets have no edge at 0.05 USD. Calls just below and just above it are in
	// one bucket, and only those above are told.
	r.clients([]clients.Call{call("anthropic", false, "input=100;tokens=3300")}) // 0.0498
	r.all()
	if said := r.hook.said(); strings.Contains(said, "TollwireCallOver") {
		t.Errorf("calls that are not expensive were told:\n%s", said)
	}
	r.clients([]clients.Call{call("anthropic", false, "input=100;tokens=3340")}) // 0.0504
	r.all()
	r.once("TollwireCallOver5Cents")

	// Jaeger hangs, so spans wait in the Collector's queue on disk; the Collector is killed
	// with them, and again at work. While it is away they wait in the agent's.
	jaeger.Signal(syscall.SIGSTOP)
	r.clients(traffic())
	r.await("the Collector has the spans", func() bool {
		m := r.scrape()
		return m.Sum("tollwire_queue_depth", "queue", "otlp.traces") == 0 && m.Sum("tollwire_calls_total", "role", "client", "tollwire_graph", graph) == float64(r.ledger().calls)
	})
	collector.Kill()
	jaeger.Signal(syscall.SIGCONT)
	r.clients(append(traffic(), expensive()))
	r.await("spans wait on disk", func() bool { return r.scrape().Sum("tollwire_queue_depth", "queue", "otlp.traces") > 0 })
	if got, want := jaeger.spans(t), r.ledger(); got.calls >= want.calls {
		t.Errorf("%d spans came through a Collector that is dead", got.calls)
	}
	r.out.unseen(t, r.agent, nil)
	collector.Restart()
	working := r.begin(traffic())
	time.Sleep(200 * time.Millisecond)
	collector.Kill()
	r.finish(working)
	collector.Restart()
	r.clients(traffic())
	want := r.all()

	r.once("TollwireCallOver50Cents")
	if got := spans.Exemplars(`tollwire_expensive_calls_total{over_usd="0.5"}`); !slices.Contains(got, trace) {
		t.Errorf("exemplars of traces %q, want %s", got, trace)
	}
	if n := jaeger.children(t, trace); n != len(r.programs) {
		t.Errorf("%d of %d calls hang on the span that their programs named", n, len(r.programs))
	}
	if len(spans.Query(`{__name__=~"(gen_ai|tollwire)_.+_bucket"}`)) > 0 {
		t.Error("a Prometheus that keeps native buckets kept classic ones")
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if len(behind.Query(fmt.Sprintf("tollwire_build_info{job=%q, instance=%q}", "tollwire", host))) != 1 {
		t.Error("behind the Collector nothing says which machine's agent it is")
	}
	r.show()
	r.dashboards(mustAbs(t, prometheus3))
	r.promtool(program("promtool3"))
	r.out.look(t, "Jaeger", jaeger.said)
	for _, p := range []*servers.Prometheus{buckets, spans, behind} {
		r.out.look(t, "Prometheus 3", series(t, p))
	}
	r.end(want)
}

// collector is a running OpenTelemetry Collector.
type collector struct {
	*servers.Process
	grpc, metrics string // addresses: OTLP in, /metrics out
	state         string // its folder, with the queue
}

// startCollector runs the configuration that is shipped, on free ports, with neither
// sampling nor batches: what the agent sent is what arrives.
func startCollector(t *testing.T, program, traces string) *collector {
	t.Helper()
	shipped, err := os.ReadFile("../otel-collector/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), program, "validate", "--config", "../otel-collector/config.yaml").CombinedOutput(); err != nil || strings.Contains(string(out), "deprecated") {
		t.Errorf("the Collector's configuration as shipped: %v\n%s", err, out)
	}
	c := &collector{grpc: servers.FreePort(t), metrics: servers.FreePort(t), state: t.TempDir()}
	health := servers.FreePort(t)
	text := string(shipped)
	for _, change := range [][2]string{
		{"127.0.0.1:4317", c.grpc}, {"127.0.0.1:4318", servers.FreePort(t)}, {"127.0.0.1:13133", health}, {"127.0.0.1:9466", c.metrics},
		{"${env:TRACE_STORE:-127.0.0.1:14317}", traces}, {"${env:COLLECTOR_STATE:-/var/lib/otelcol}", c.state},
		{"[memory_limiter, tail_sampling, batch]", "[memory_limiter]"}, {"[memory_limiter, batch]", "[memory_limiter]"},
	} {
		if !strings.Contains(text, change[0]) {
			t.Fatalf("the Collector's configuration says nowhere %q", change[0])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Process = servers.Start(t, program, "http://"+health, "--config", file)
	return c
}

// jaeger is a running Jaeger that keeps spans in its memory.
type jaeger struct {
	*servers.Process
	otlp, query string // addresses
	said        []byte // its last answers
}

func startJaeger(t *testing.T, program string) *jaeger {
	t.Helper()
	j := &jaeger{otlp: servers.FreePort(t), query: servers.FreePort(t)}
	admin := servers.FreePort(t)
	args := []string{"--collector.otlp.grpc.host-port=" + j.otlp, "--query.http-server.host-port=" + j.query, "--admin.http.host-port=" + admin,
		"--collector.otlp.grpc.max-message-size=16777216", "--collector.queue-size=100000", "--memory.max-traces=0", "--log-level=warn"}
	for _, unused := range []string{"collector.otlp.http.", "collector.http-server.", "collector.grpc-server.", "query.grpc-server.", "http-server.",
		"processor.jaeger-compact.server-", "processor.jaeger-binary.server-", "processor.zipkin-compact.server-"} {
		args = append(args, "--"+unused+"host-port="+servers.FreePort(t))
	}
	j.Process = servers.Start(t, program, "http://"+admin, args...)
	return j
}

// span is one of Jaeger's, as its API gives it.
type span struct {
	TraceID, SpanID string
	References      []struct{ RefType, TraceID, SpanID string }
	Tags            []struct {
		Key   string
		Value any
	}
}

func (s *span) tag(key string) any {
	for _, t := range s.Tags {
		if t.Key == key {
			return t.Value
		}
	}
	return nil
}

// each hands over every span, each id once.
func (j *jaeger) each(t *testing.T, one func(*span)) {
	t.Helper()
	j.said = j.said[:0]
	var services struct{ Data []string }
	j.get(t, "services", &services)
	seen := map[string]bool{}
	for _, name := range services.Data {
		now := time.Now()
		var traces struct{ Data []struct{ Spans []*span } }
		j.get(t, "traces?"+url.Values{"service": {name}, "limit": {"100000"},
			"start": {strconv.FormatInt(now.Add(-time.Hour).UnixMicro(), 10)}, "end": {strconv.FormatInt(now.Add(time.Hour).UnixMicro(), 10)}}.Encode(), &traces)
		for _, tr := range traces.Data {
			for _, s := range tr.Spans {
				if !seen[s.SpanID] {
					seen[s.SpanID] = true
					one(s)
				}
			}
		}
	}
}

// spans adds up the spans.
func (j *jaeger) spans(t *testing.T) (sum totals) {
	t.Helper()
	j.each(t, func(s *span) {
		number := func(key string) float64 {
			f, _ := s.tag(key).(float64)
			return f
		}
		if s.tag("tollwire.graph") != graph {
			return
		}
		sum.usd += number("tollwire.cost.usd")
		if s.tag("span.kind") == "server" {
			sum.served++
			return
		}
		sum.calls++
		if s.tag("otel.status_code") == "ERROR" {
			sum.failed++
		}
		sum.input += number("gen_ai.usage.input_tokens")
		sum.output += number("gen_ai.usage.output_tokens")
	})
	return sum
}

// children is how many calls hang on the span that their programs named.
func (j *jaeger) children(t *testing.T, trace string) (n int) {
	t.Helper()
	j.each(t, func(s *span) {
		for _, ref := range s.References {
			if s.TraceID == trace && s.tag("span.kind") == "client" && ref.RefType == "CHILD_OF" && ref.SpanID == parent {
				n++
			}
		}
	})
	return n
}

func (j *jaeger) get(t *testing.T, path string, v any) {
	t.Helper()
	b := get(t, "http://"+j.query+"/api/"+path, "application/json")
	j.said = append(j.said, b...)
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// series are all that a Prometheus has, with their labels.
func series(t *testing.T, p *servers.Prometheus) []byte {
	t.Helper()
	return get(t, "http://"+p.Addr+"/api/v1/series?match[]="+url.QueryEscape(`{__name__=~".+"}`), "application/json")
}
