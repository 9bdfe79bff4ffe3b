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

var wanted = flag.Bool("backends", false, "run: needs root, Prometheus, Alertmanager and the binaries in bin/, as make test-backends has them")

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv(receiverFolder); dir != "" {
		fmt.Fprintln(os.Stderr, "receiver:", receive(dir))
		os.Exit(1)
	}
	if !*wanted {
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
	code := m.Run()
	if code == 0 && flag.Lookup("test.run").Value.String() == "" {
		fmt.Println("backends: prometheus ok, alertmanager ok, otlp ok, totals equal, canary unseen")
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

// config is the agent's, with the defaults for everything that is private.
const config = `
pricing:
  budgets:
    - {name: all, period: day, limit: 5}
export:
  metrics: {native: true}
  otlp:
    endpoint: grpcs://%[1]s
    header_files: {authorization: %[2]s/authorization}
    tls: {ca: %[2]s/ca.pem, cert: %[2]s/client.pem, key: %[2]s/client.key}
    queue: {dir: %[3]s}
    interval: 1s
`

// rig is all that runs.
type rig struct {
	*testing.T
	ctx        context.Context
	sim        *trial.Sim
	agent      *trial.Agent
	programs   []clients.Client
	receiver   *receiver
	prometheus *servers.Prometheus
	hook       *webhook
	out        outputs
	ignored    int // entries of the ledger from before the agent
}

func TestBackends(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	r := newRig(t, ctx)

	r.clients(traffic())
	r.all()

	// The receiver dies at work; what it does not get waits on disk.
	working := r.start(traffic())
	time.Sleep(200 * time.Millisecond)
	r.receiver.kill()
	r.finish(working)
	r.clients(append(traffic(), call("anthropic", false, "input=100000;tokens=21000")))
	r.await("spans wait on disk", func() bool { return r.scrape().Sum("tollwire_queue_depth", "queue", "otlp.traces") > 0 })
	if got, want := r.receiver.spans(t), r.ledger(); got.calls >= want.calls {
		t.Errorf("%d spans came to a receiver that is dead", got.calls)
	}
	r.out.unseen(t, r.agent, nil)
	r.receiver.start(t)
	r.clients(traffic())
	want := r.all()

	// The dear call is told once.
	const alert = "TollwireCallOver50Cents"
	r.await("the alert", func() bool { return r.hook.told(alert) > 0 })
	time.Sleep(3 * time.Second) // three evaluations and as many group intervals
	if n := r.hook.told(alert); n != 1 {
		t.Errorf("the alert was told %d times:\n%s", n, r.hook.said())
	}

	r.dashboards()
	r.promtool()
	r.out.unseen(t, r.agent, map[string]string{"alerts": r.hook.said()})
	r.out.looked(t)
	if err := r.agent.Stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	t.Logf("%+v everywhere; %d bytes of output without a private text", want, r.out.seen)
}

func newRig(t *testing.T, ctx context.Context) *rig {
	r := &rig{T: t, ctx: ctx, hook: &webhook{}}
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
	dir := t.TempDir()
	private := append(answers(t, r.sim), canary)
	r.await("the ledger", func() bool { return len(r.entries()) == 2 })
	r.ignored = 2

	r.receiver = newReceiver(t)
	r.receiver.start(t)
	queue := filepath.Join(dir, "queue")
	r.out = outputs{
		private: private, public: "gpt-4o-mini",
		files: []string{dir, filepath.Join(r.receiver.dir, "traces"), filepath.Join(r.receiver.dir, "metrics")},
		holds: map[string]bool{"/metrics as text/plain": false, "/metrics as application/openmetrics": false, "/metrics as application/vnd": false,
			filepath.Join(dir, "calls.jsonl"): false, filepath.Join(queue, "traces"): false, filepath.Join(queue, "metrics"): false},
	}
	for _, d := range r.out.files[1:] {
		r.out.holds[d] = false
	}
	file := filepath.Join(t.TempDir(), "tollwire.yaml")
	text := fmt.Sprintf(config, r.receiver.addr(t), r.receiver.dir, queue)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r.agent, err = trial.StartAgent(ctx, bin.agent, dir, "--config", file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.agent.Stop(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("the agent said:\n%s", r.agent.Log())
		}
	})

	hook := httptest.NewServer(r.hook)
	t.Cleanup(hook.Close)
	am := servers.StartAlertmanager(t, alertmanagerConfig(t, hook.URL))
	rules, err := filepath.Abs("../prometheus")
	if err != nil {
		t.Fatal(err)
	}
	r.prometheus = servers.StartPrometheus(t, fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%s/recording.yml, %s/alerts.yml]\n"+
		"alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}\n"+
		"scrape_configs:\n  - {job_name: tollwire, static_configs: [{targets: [%q]}]}\n", rules, rules, am, strings.TrimPrefix(r.agent.Metrics, "http://")))
	return r
}

// await waits until done, at most half a minute.
func (r *rig) await(what string, done func() bool) {
	r.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("%s did not come", what)
		}
	}
}

// clients has every program make the calls.
func (r *rig) clients(calls []clients.Call) {
	r.Helper()
	r.finish(r.start(calls))
}

func (r *rig) start(calls []clients.Call) (runs []*clients.Run) {
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
	time.Sleep(200 * time.Millisecond) // a program's file may be new to the agent
	for _, run := range runs {
		if err := run.Go(); err != nil {
			r.Fatal(err)
		}
	}
	return runs
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
	for name, read := range map[string]func() totals{
		"JSON Lines": r.records, "Prometheus": r.queries,
		"spans":        func() totals { return r.receiver.spans(r.T) },
		"OTLP metrics": func() totals { return r.receiver.measures(r.T) },
	} {
		var got totals
		for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(250 * time.Millisecond) {
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

func (r *rig) queries() totals {
	sum := func(name, labels string) (sum float64) {
		for _, v := range r.prometheus.Query(fmt.Sprintf("sum(%s{tollwire_graph=%q%s})", name, graph, labels)) {
			sum += v
		}
		return sum
	}
	return totals{
		calls:  int(sum("tollwire_calls_total", `, role="client"`)),
		failed: int(sum("tollwire_calls_total", `, role="client", status!="ok"`)),
		served: int(sum("tollwire_calls_total", `, role="server"`)),
		input:  sum("gen_ai_client_token_usage_sum", `, gen_ai_token_type="input"`),
		output: sum("gen_ai_client_token_usage_sum", `, gen_ai_token_type="output"`),
		usd:    sum("tollwire_cost_usd_total", ""),
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

// dashboards has every query of every dashboard answered while calls of every kind go on.
func (r *rig) dashboards() {
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
	cmd.Env = append(os.Environ(), "TOLLWIRE_METRICS="+strings.TrimPrefix(r.agent.Metrics, "http://"))
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
func (r *rig) promtool() {
	r.Helper()
	cmd := exec.CommandContext(r.ctx, "promtool", "check", "metrics")
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
