package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/recordtest"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/export/jsonl"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/probes"
)

// tape is a source of records made beforehand, a list for each shard.
type tape [][]flow.Data

func (s tape) Shards() int                                      { return len(s) }
func (s tape) SetVerdict(flow.Conn, uint32, flow.Verdict) error { return nil }
func (s tape) Close() error                                     { return nil }

func (s tape) Read(shard int, d *flow.Data) error {
	if len(s[shard]) == 0 {
		return os.ErrClosed
	}
	*d, s[shard] = s[shard][0], s[shard][1:]
	return nil
}

// exchanged is one request and its answer, as the client with that connection saw them.
func exchanged(c flow.Conn, request, answer string) []flow.Data {
	return []flow.Data{
		{Kind: flow.KindData, Conn: c, Dir: flow.Write, Source: flow.SourceOpenSSL, Time: 1e9, Head: true, Exchange: 1, Payload: []byte(request)},
		{Kind: flow.KindData, Conn: c, Dir: flow.Read, Source: flow.SourceOpenSSL, Time: 2e9, Head: true, Exchange: 1, Payload: []byte(answer)},
		{Kind: flow.KindClose, Conn: c, Source: flow.SourceOpenSSL, Time: 3e9},
	}
}

const (
	chatBody   = `{"model":"gpt-4o"}`
	chatAnswer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + `{"id":"chat-1"}`
)

// chat is a request to a model with further header lines.
func chat(headers ...string) string {
	return "POST /v1/chat/completions HTTP/1.1\r\nHost: api.openai.com\r\nContent-Type: application/json\r\nContent-Length: 18\r\n" +
		strings.Join(append(headers, "", chatBody), "\r\n")
}

// lines sends recorded bytes through the whole pipeline of a configuration and returns
// the lines of its records.
func lines(t *testing.T, cfg *Config, src source) []string {
	t.Helper()
	log, key := slog.New(slog.DiscardHandler), []byte("a key of some length")
	prices, err := cfg.Pricing.open(log)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Kubernetes.Enabled = "no"
	owners, _, err := cfg.owners(t.Context(), key, log)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	written := jsonl.New(&out)
	p := &pipeline{
		log: log, source: src, decoder: cfg.decoder(key, prices.API, log), owners: owners, settle: account.Config{}, prices: prices,
		stamp:  func(c *llm.Call) time.Time { return time.Unix(0, int64(c.Times.Start)) },
		export: []exporter{written}, queue: 1,
	}
	if err := p.run(); err != nil {
		t.Fatal(err)
	}
	if err := written.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

const id = "4f0fbd8bd0f0a4a84ebd6ebf6a5fc50b3a2f1c86ac3e5c3de8a4d3c3a2b1f0e9" // of a container

// madeUp is a folder with these files, the root of a machine.
func madeUp(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files["sys/fs/cgroup/cgroup.controllers"] = ""
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// unnamed are the pods of an API server that does not answer.
type unnamed struct{ asked atomic.Int64 }

func (u *unnamed) Pod(string, string) (*attribution.Pod, bool) {
	u.asked.Add(1)
	return nil, false
}

// A call whose name there is no room for is counted once, however often its owner is
// asked for while it waits.
func TestCapped(t *testing.T) {
	root := madeUp(t, map[string]string{
		"proc/100/stat":   "100 (curl) S 1 100 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1000 0 0",
		"proc/100/cgroup": "0::/kubepods.slice/kubepods-pod6a6b1f34_1d9e_4f0e_9f34_0a4c6f0d7c11.slice/cri-containerd-" + id + ".scope\n",
	})
	log := slog.New(slog.DiscardHandler)
	cfg, pods := defaults(), new(unnamed)
	a := &cfg.Attribution
	a.Proc, a.HostRoot, a.CgroupRoot, a.Pods = filepath.Join(root, "proc"), root, filepath.Join(root, "sys/fs/cgroup"), pods
	a.Node.Values, a.Graph.Values, a.Wait = 1, 1, time.Minute
	owners, err := attribution.New(*a)
	if err != nil {
		t.Fatal(err)
	}
	prices, err := cfg.Pricing.open(log)
	if err != nil {
		t.Fatal(err)
	}
	var out kept
	p := &pipeline{
		log: log, owners: owners, prices: prices, export: []exporter{&out}, tick: time.Millisecond,
		stamp: func(*llm.Call) time.Time { return time.Now() }, settle: cfg.settle(owners),
	}
	p.settle.Wait = time.Millisecond
	calls := make(chan *llm.Call, 3)
	for i := range 3 {
		r := recordtest.New(recordtest.ID(fmt.Sprint(i)), func(r *account.Record) {
			r.Call.Conn = flow.Conn{Proc: flow.Proc{PID: 100, Start: 1000 * 1e7}, Key: uint64(i + 1), Gen: 1}
			r.Call.Times.End = probes.Now()
			r.Call.Headers = map[string]string{"x-tollwire-node": fmt.Sprint("n", i)}
		})
		calls <- r.Call
	}
	done := make(chan struct{})
	go func() { defer close(done); p.finish(calls) }()
	for deadline := time.Now().Add(30 * time.Second); pods.asked.Load() < 20; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("owners asked for %d times", pods.asked.Load())
		}
	}
	close(calls)
	<-done
	if len(out) != 3 {
		t.Fatalf("%d records", len(out))
	}
	if g, n := p.capped.graphs.Load(), p.capped.nodes.Load(); g != 0 || n != 2 {
		t.Errorf("%d graphs and %d nodes capped, want 0 and 2", g, n)
	}
	if out[0].Owner.Node != "n0" || out[1].Owner.Node != "other" || out[2].Owner.Node != "other" {
		t.Errorf("nodes %q, %q, %q", out[0].Owner.Node, out[1].Owner.Node, out[2].Owner.Node)
	}
}

// What is known of a call's program, its container and its baggage is in the record,
// and no secret of any of them.
func TestOwnerInRecord(t *testing.T) {
	root := madeUp(t, map[string]string{
		"proc/100/stat":    "100 (python3) S 1 100 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1000 0 0",
		"proc/100/cgroup":  "0::/docker/" + id + "\n",
		"proc/100/cmdline": "python3\x00--token\x00canary\x00",
		"proc/100/environ": "SECRET=canary\x00OTEL_RESOURCE_ATTRIBUTES=service.version=2.1,deployment.environment.name=prod,team=search," +
			"trace_id=x,time=x,server.address=x,gen_ai.usage.input_tokens=9,container.id=x,k8s.pod.name=x\x00",
		"var/lib/docker/containers/" + id + "/config.v2.json": `{"Name":"/web-1","Config":{}}`,
	})
	cfg := defaults()
	a := &cfg.Attribution
	a.Proc, a.HostRoot, a.CgroupRoot = filepath.Join(root, "proc"), root, filepath.Join(root, "sys/fs/cgroup")
	a.Baggage = []string{"user.tier"}
	conn := flow.Conn{Proc: flow.Proc{PID: 100, Start: 1000 * 1e7}, Key: 1, Gen: 1}
	got := lines(t, cfg, tape{exchanged(conn, chat("Authorization: Bearer canary",
		"baggage: session=canary,user.tier=gold;p=canary, tollwire.node=plan%20b", "Baggage: tollwire.graph=research,tenant=canary"), chatAnswer)})
	if len(got) != 1 {
		t.Fatalf("%d records: %s", len(got), got)
	}
	if strings.Contains(got[0], "canary") {
		t.Errorf("a secret is in %s", got[0])
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(got[0]), &m); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]any{
		"container.id": id, "container.name": "web-1", "container.runtime.name": "docker",
		"service.name": "web-1", "service.version": "2.1", "deployment.environment.name": "prod", "team": "search",
		"tollwire.graph": "research", "tollwire.node": "plan b", "tollwire.node.source": "baggage",
		"tollwire.baggage.user.tier": "gold", "tollwire.baggage.tollwire.node": "plan b", "tollwire.baggage.tollwire.graph": "research",
		"server.address": "api.openai.com", "k8s.pod.name": nil, "tollwire.baggage.session": nil, "tollwire.baggage.tenant": nil,
	} {
		if m[k] != want {
			t.Errorf("%s is %v, want %v", k, m[k], want)
		}
	}
	for _, k := range []string{"time", "trace_id", "server.address", "container.id", "gen_ai.usage.input_tokens"} {
		if n := strings.Count(got[0], `"`+k+`":`); n > 1 {
			t.Errorf("%d keys %s in %s", n, k, got[0])
		}
	}
}

// Calls that are signed with one key are one tenant's, in records that do not show it.
func TestTenantOfSignedCalls(t *testing.T) {
	cfg := defaults()
	cfg.Attribution.Proc, cfg.Attribution.HostRoot = t.TempDir(), t.TempDir()
	cfg.Attribution.Tenant.From, cfg.Attribution.Tenant.Values = []string{"api_key"}, 2
	signed := func(key, date string) string {
		return "Authorization: AWS4-HMAC-SHA256 Credential=" + key + "/" + date + "/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=" + date
	}
	var all []flow.Data
	for i, header := range []string{signed("AKIAcanary1", "20260801"), signed("AKIAcanary1", "20260802"), signed("AKIAcanary2", "20260802"), signed("AKIAcanary1", "20260803")} {
		all = append(all, exchanged(flow.Conn{Key: uint64(i + 1), Gen: 1}, chat(header), chatAnswer)...)
	}
	var tenants []string
	for _, l := range lines(t, cfg, tape{all}) {
		var m map[string]any
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(l, "canary") {
			t.Errorf("the key is in %s", l)
		}
		tenant, _ := m["tollwire.tenant"].(string)
		tenants = append(tenants, tenant)
	}
	if len(tenants) != 4 || len(tenants[0]) != 32 || tenants[1] != tenants[0] || tenants[3] != tenants[0] || len(tenants[2]) != 32 || tenants[2] == tenants[0] {
		t.Errorf("tenants %q, want one and the same but for the third", tenants)
	}
}
