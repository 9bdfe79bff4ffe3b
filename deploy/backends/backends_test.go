// Package backends_test runs the agent on the traffic of real clients with the provider
// simulator, and reads the same totals back from everything it hands them to:
// Prometheus, OTLP spans and OTLP metrics, JSON Lines, with the OTLP receiver killed in
// between. It follows an alert to a webhook, asks every dashboard's queries, and looks
// for private texts in all that came out. It needs root; make test-backends runs it.
package backends_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/deploy/servers"
	"github.com/tollwire/tollwire/internal/clients"
	"github.com/tollwire/tollwire/internal/trial"
	"github.com/tollwire/tollwire/llm"
)

var bin = struct{ agent, llmsim, dashboards string }{"../../bin/tollwire", "../../bin/llmsim", "../../bin/grafana.test"}

var (
	wanted = flag.Bool("backends", false, "run: needs root, Prometheus, Alertmanager and the binaries in bin/, as make test-backends has them")
	full   = flag.String("full", "", "run with what stands in this folder instead: Prometheus 3, Jaeger, a Collector, as make test-backends-full builds them")
)

// fullTest is the one that -full runs, and nothing else does.
const fullTest = "^TestRealBackends$"

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv(receiverFolder); dir != "" {
		fmt.Fprintln(os.Stderr, "receiver:", receive(dir))
		os.Exit(1)
	}
	if !*wanted && *full == "" {
		fmt.Println("backends: skipped, make test-backends runs it")
		os.Exit(0)
	}
	if os.Geteuid() != 0 {
		fmt.Println("backends: probes need root")
		os.Exit(1)
	}
	for _, p := range []string{"prometheus", "prometheus-alertmanager", "promtool"} {
		if _, err := exec.LookPath(p); err != nil {
			fmt.Println("backends: run hack/setup backends:", err)
			os.Exit(1)
		}
	}
	all := flag.Lookup("test.run").Value.String() == ""
	ok, which := "backends: prometheus ok, alertmanager ok, otlp ok, totals equal, canary unseen", "test.skip"
	if *full != "" {
		ok, which = "backends: prometheus 3 ok, jaeger ok, collector ok, totals equal, canary unseen", "test.run"
	}
	if err := flag.Set(which, fullTest); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	code := m.Run()
	if code == 0 && all {
		fmt.Println(ok)
	}
	os.Exit(code)
}

// totals are what the ledger and every backend must agree on.
type totals struct {
	calls, failed, served int // as their clients saw them, of these failed; as the server did
	input, output         float64
	usd                   float64
}

func (a totals) equal(b totals) bool {
	usd := math.Abs(a.usd - b.usd)
	a.usd, b.usd = 0, 0
	return a == b && usd < 1e-9
}

// pricingConfig is a budget, for the dashboards that show one.
const pricingConfig = `
pricing:
  budgets:
    - {name: all, period: day, limit: 5}
`

// otlpConfig is the agent's for a receiver, with the defaults for everything that is
// private: its endpoint, its folder and that of the queue.
const otlpConfig = pricingConfig + `
export:
  metrics: {native: true}
  otlp:
    endpoint: %[1]s
    header_files: {authorization: %[2]s/authorization}
    tls: {ca: %[2]s/ca.pem, cert: %[2]s/client.pem, key: %[2]s/client.key}
    queue: {dir: %[3]s}
    interval: 1s
`

// rig is all that runs.
type rig struct {
	*testing.T
	ctx      context.Context
	dir      string // of the agent: records and queue
	sim      *trial.Sim
	agent    *trial.Agent
	programs []clients.Client
	hook     *webhook
	out      outputs
	ignored  int                      // entries of the ledger from before the agent
	backends map[string]func() totals // what each says
}

// TestBackends: Debian's Prometheus and Alertmanager, and OTLP over gRPC.
func TestBackends(t *testing.T) {
	r := newRig(t, 5*time.Minute)
	receiver := r.receive("grpcs")
	prometheus := r.prometheus("prometheus", r.alertmanager(), "--enable-feature=exemplar-storage")
	r.backends["Prometheus"] = r.scraped(prometheus, "tollwire", classic)

	r.clients(traffic())
	r.all()

	want := r.outage(receiver)

	// The expensive calls are told once, and lead to their trace.
	r.once("TollwireCallOver50Cents")
	if got := prometheus.Exemplars(`tollwire_expensive_calls_total{over_usd="0.5"}`); !slices.Contains(got, trace) {
		t.Errorf("exemplars of traces %q, want %s", got, trace)
	}
	r.show()

	r.dashboards("prometheus")
	r.promtool("promtool")
	r.end(want)
}

// TestOTLPOverHTTP: the same to a receiver that speaks as Langfuse's does.
func TestOTLPOverHTTP(t *testing.T) {
	r := newRig(t, 3*time.Minute)
	receiver := r.receive("https")
	r.clients(traffic())
	r.all()
	r.end(r.outage(receiver))
}

// newRig starts the provider's simulator; receive or start start the agent.
func newRig(t *testing.T, limit time.Duration) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	r := &rig{T: t, ctx: ctx, dir: t.TempDir(), hook: &webhook{}, backends: map[string]func() totals{}}
	r.backends["JSON Lines"] = r.records
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if r.programs, err = clients.All(ctx, filepath.Join(cache, "tollwire", "clients")); err != nil {
		t.Fatal(err)
	}
	if r.sim, err = trial.StartSim(bin.llmsim, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.sim.Stop(syscall.SIGTERM) })
	r.out = outputs{private: append(answers(t, r.sim), canary), public: "gpt-4o-mini", holds: map[string]bool{}}
	r.await("the ledger", func() bool { return len(r.entries()) == 2 })
	r.ignored = 2
	return r
}

// start starts the agent with the configuration.
func (r *rig) start(config string) {
	r.Helper()
	file := filepath.Join(r.TempDir(), "tollwire.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		r.Fatal(err)
	}
	var err error
	if r.agent, err = trial.StartAgent(r.ctx, bin.agent, r.dir, "--config", file); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		_ = r.agent.Stop(syscall.SIGKILL)
		if r.Failed() {
			r.Logf("the agent said:\n%s", r.agent.Log())
		}
	})
	r.out.mustHold(filepath.Join(r.dir, "calls.jsonl"), r.queue("traces"), r.queue("metrics"),
		"/metrics as text/plain", "/metrics as application/openmetrics", "/metrics as application/vnd")
	r.out.files = append(r.out.files, r.dir)
}

// queue is where the agent's spans or metrics wait.
func (r *rig) queue(signal string) string { return filepath.Join(r.dir, "queue", signal) }

// receive starts a receiver of OTLP, and the agent that sends to it.
func (r *rig) receive(scheme string) *receiver {
	r.Helper()
	c := newReceiver(r.T, scheme)
	c.start(r.T)
	text := fmt.Sprintf(otlpConfig, c.endpoint(r.T), c.dir, filepath.Join(r.dir, "queue"))
	if scheme == "https" {
		text += "    langfuse: true\n"
	}
	r.start(text)
	got := []string{filepath.Join(c.dir, "traces"), filepath.Join(c.dir, "metrics")}
	r.out.files = append(r.out.files, got...)
	r.out.mustHold(got...)
	r.backends["spans"] = func() totals { return c.spans(r.T) }
	r.backends["OTLP metrics"] = func() totals { return c.measures(r.T) }
	return c
}

// outage kills the receiver at work. What it does not get waits on disk until it is
// there again; among it are the expensive calls.
func (r *rig) outage(c *receiver) totals {
	r.Helper()
	working := r.begin(traffic())
	time.Sleep(200 * time.Millisecond)
	c.kill()
	r.finish(working)
	r.clients(append(traffic(), expensive()))
	r.await("spans wait on disk", func() bool { return r.scrape().Sum("tollwire_queue_depth", "queue", "otlp.traces") > 0 })
	if got, want := c.spans(r.T), r.ledger(); got.calls >= want.calls {
		r.Errorf("%d spans came to a receiver that is dead", got.calls)
	}
	r.out.unseen(r.T, r.agent, nil)
	c.start(r.T)
	r.clients(traffic())
	want := r.all()
	if n := c.children(r.T); n != len(r.programs) {
		r.Errorf("%d of %d calls hang on the span that their programs named", n, len(r.programs))
	}
	return want
}

// end looks at everything that came out, and ends the agent in order.
func (r *rig) end(want totals) {
	r.Helper()
	r.out.unseen(r.T, r.agent, map[string]string{"alerts": r.hook.said()})
	r.out.looked(r.T)
	if err := r.agent.Stop(syscall.SIGTERM); err != nil {
		r.Error(err)
	}
	r.Logf("%+v everywhere; %d bytes of output without a private text", want, r.out.seen)
}

// alertmanager starts one that tells r.hook, and returns its address.
func (r *rig) alertmanager() string {
	r.Helper()
	hook := httptest.NewServer(r.hook)
	r.Cleanup(hook.Close)
	return servers.StartAlertmanager(r.T, alertmanagerConfig(r.T, hook.URL))
}

// once waits for an alert and for it not to be told again.
func (r *rig) once(alert string) {
	r.Helper()
	r.await(alert, func() bool { return r.hook.told(alert) > 0 })
	time.Sleep(3 * time.Second) // three evaluations and as many group intervals
	if n := r.hook.told(alert); n != 1 {
		r.Errorf("%s was told %d times:\n%s", alert, n, r.hook.said())
	}
}

// prometheus starts a server with the rules that scrapes the agent.
func (r *rig) prometheus(program, alertmanager string, flags ...string) *servers.Prometheus {
	r.Helper()
	rules := mustAbs(r.T, "../prometheus")
	return servers.StartPrometheus(r.T, program, fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%s/recording.yml, %s/alerts.yml]\n"+
		"alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}\n"+
		"scrape_configs:\n  - {job_name: tollwire, static_configs: [{targets: [%q]}]}\n",
		rules, rules, alertmanager, strings.TrimPrefix(r.agent.Metrics, "http://")), flags...)
}

// patience is how long a busy machine may take for what an idle one has in a second.
const patience = time.Minute

// await waits until done.
func (r *rig) await(what string, done func() bool) {
	r.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("%s did not come", what)
		}
	}
}

// clients has every program make the calls.
func (r *rig) clients(calls []clients.Call) {
	r.Helper()
	r.finish(r.begin(calls))
}

func (r *rig) begin(calls []clients.Call) (runs []*clients.Run) {
	r.Helper()
	for i := range r.programs {
		c := &r.programs[i]
		run, err := c.Start(r.ctx, clients.Spec{BaseURL: r.sim.URL, CA: r.sim.CA, Calls: calls, KeepAlive: true, Wait: true})
		if err == nil {
			err = run.Ready(r.ctx)
		}
		if err != nil {
			r.Fatal(err)
		}
		runs = append(runs, run)
	}
	for _, run := range runs {
		r.release(run)
	}
	return runs
}

// release lets a program that waits make its calls, once the agent has tapped it: its file
// may be new.
func (r *rig) release(run *clients.Run) {
	r.Helper()
	if err := r.agent.Tapped(r.ctx, run.PID); err != nil {
		r.Fatal(err)
	}
	if err := run.Go(); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) finish(runs []*clients.Run) {
	r.Helper()
	for _, run := range runs {
		if _, err := run.Wait(); err != nil {
			r.Fatal(err)
		}
	}
}

func (r *rig) entries() []*sim.Entry {
	r.Helper()
	all, err := r.sim.Ledger()
	if err != nil {
		r.Fatal(err)
	}
	return all[min(r.ignored, len(all)):]
}

// ledger adds up what llmsim says it served, with prices computed by hand.
func (r *rig) ledger() (sum totals) {
	r.Helper()
	cost := new(big.Rat)
	for _, e := range r.entries() {
		sum.calls++
		sum.served++
		for name, n := range e.Usage {
			switch class, ok := llm.ClassOf(name); {
			case ok && class.IsInput():
				sum.input += n
			case ok && class.IsOutput():
				sum.output += n
			}
		}
		if e.Outcome != "completed" {
			sum.failed++
			continue
		}
		usd, ok := trial.Price(e)
		price, parsed := new(big.Rat).SetString(usd)
		if !ok || !parsed {
			r.Fatalf("no price by hand for %+v", e)
		}
		cost.Add(cost, price)
	}
	sum.usd, _ = cost.Float64()
	return sum
}

// all waits until every backend says what the ledger says.
func (r *rig) all() totals {
	r.Helper()
	// Everything that was asked for is in the ledger: the clients have ended.
	time.Sleep(100 * time.Millisecond)
	want := r.ledger()
	for name, read := range r.backends {
		var got totals
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(250 * time.Millisecond) {
			if got = read(); got.equal(want) {
				break
			}
		}
		if !got.equal(want) {
			r.Errorf("%s:\n     %+v\nwant %+v", name, got, want)
		}
	}
	return want
}

func (r *rig) records() (sum totals) {
	r.Helper()
	all, err := r.agent.Records()
	if err != nil {
		r.Fatal(err)
	}
	cost := new(big.Rat)
	for _, rec := range all {
		if rec.Graph == graph {
			sum.record(rec, cost)
		}
	}
	sum.usd, _ = cost.Float64()
	return sum
}

func (sum *totals) record(rec *ledgercheck.Record, cost *big.Rat) {
	if rec.Role == "server" {
		sum.served++
		return
	}
	sum.calls++
	if rec.Error != "" {
		sum.failed++
	}
	for name, n := range rec.Usage {
		switch class, ok := llm.ClassOf(name); {
		case ok && class.IsInput():
			sum.input += n
		case ok && class.IsOutput():
			sum.output += n
		}
	}
	if usd, ok := new(big.Rat).SetString(rec.Cost); ok {
		cost.Add(cost, usd)
	}
}

// How the sum of a histogram is asked for.
const (
	classic = "%s_sum%s"
	native  = "histogram_sum(%s%s)"
)

// scraped reads what a Prometheus has of a job.
func (r *rig) scraped(p *servers.Prometheus, job, histogram string) func() totals {
	sum := func(format, name, labels string) (sum float64) {
		r.Helper()
		series := fmt.Sprintf(format, name, fmt.Sprintf("{job=%q, tollwire_graph=%q%s}", job, graph, labels))
		for _, v := range p.Query("sum(" + series + ")") {
			sum += v
		}
		return sum
	}
	return func() totals {
		return totals{
			calls:  int(sum("%s%s", "tollwire_calls_total", `, role="client"`)),
			failed: int(sum("%s%s", "tollwire_calls_total", `, role="client", status!="ok"`)),
			served: int(sum("%s%s", "tollwire_calls_total", `, role="server"`)),
			input:  sum(histogram, "gen_ai_client_token_usage", `, gen_ai_token_type="input"`),
			output: sum(histogram, "gen_ai_client_token_usage", `, gen_ai_token_type="output"`),
			usd:    sum("%s%s", "tollwire_cost_usd_total", ""),
		}
	}
}

// show has the agent's own account of the trace that the expensive calls are in.
func (r *rig) show() {
	r.Helper()
	out, err := exec.CommandContext(r.ctx, bin.agent, "show", "--records", filepath.Join(r.dir, "calls.jsonl"), trace).CombinedOutput()
	n := len(r.programs)
	want := fmt.Sprintf("%d calls, %d tokens in, %d out, ", n, n*100_000, n*21_000)
	if err != nil || !strings.Contains(string(out), want) {
		r.Errorf("tollwire show %s: %v, want %q in\n%s", trace, err, want, out)
	}
}

func (r *rig) scrape() trial.Samples {
	r.Helper()
	m, err := r.agent.Scrape(r.ctx)
	if err != nil {
		r.Fatal(err)
	}
	return m
}

// dashboards has every query of every dashboard answered, by a Prometheus with classic
// and one with native buckets, while calls of every kind go on.
func (r *rig) dashboards(prometheus string) {
	r.Helper()
	java(r.T)
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":"x","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"yes"},"finish_reason":"stop"}],`+
			`"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":99}}`)
	}))
	defer liar.Close()
	curl := slices.IndexFunc(r.programs, func(c clients.Client) bool { return c.Name == "curl" })
	python := slices.IndexFunc(r.programs, func(c clients.Client) bool { return c.Name == "python-http" })

	ctx, cancel := context.WithCancel(r.ctx)
	var busy sync.WaitGroup
	busy.Go(func() {
		for ctx.Err() == nil {
			for _, of := range []struct {
				program int
				spec    clients.Spec
			}{
				{curl, clients.Spec{BaseURL: liar.URL, Calls: []clients.Call{call("openai", false, "")}}},
				{python, clients.Spec{BaseURL: r.sim.URL, CA: r.sim.CA, Calls: append(traffic(), clients.Call{Provider: "openai", Model: "nobody-knows"})}},
			} {
				run, err := r.programs[of.program].Start(ctx, of.spec)
				if err == nil {
					_, err = run.Wait()
				}
				if err != nil && ctx.Err() == nil {
					r.Errorf("traffic: %v", err)
					return
				}
			}
		}
	})
	cmd := exec.CommandContext(r.ctx, mustAbs(r.T, bin.dashboards), "-test.run", "^TestEveryQueryAnswers$", "-test.count=1")
	cmd.Dir = "../grafana"
	cmd.Env = append(os.Environ(), "TOLLWIRE_METRICS="+strings.TrimPrefix(r.agent.Metrics, "http://"), "TOLLWIRE_PROMETHEUS="+prometheus)
	out, err := cmd.CombinedOutput()
	cancel()
	busy.Wait()
	if err != nil {
		r.Errorf("dashboards: %v\n%s", err, out)
	}
}

// java runs a program that maps a library of a Java virtual machine's name, whose TLS
// the agent says it cannot see.
func java(t *testing.T) {
	t.Helper()
	lib := filepath.Join(t.TempDir(), "libjvm.so")
	src, err := filepath.Glob("/lib/*-linux-gnu/libz.so.1")
	if err != nil || len(src) == 0 {
		t.Fatalf("no libz to copy: %v", err)
	}
	b, err := os.ReadFile(src[0])
	if err == nil {
		err = os.WriteFile(lib, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("python3", "-c", "import ctypes,sys,time; ctypes.CDLL(sys.argv[1]); time.sleep(600)", lib)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
}

// promtool finds nothing to say about /metrics.
func (r *rig) promtool(program string) {
	r.Helper()
	cmd := exec.CommandContext(r.ctx, program, "check", "metrics")
	cmd.Stdin = strings.NewReader(string(get(r.T, r.agent.Metrics+"/metrics", "text/plain")))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		r.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(errors.New(path))
	}
	return abs
}
