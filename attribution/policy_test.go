package attribution

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// cluster is a made-up Pods.
type cluster struct {
	mu   sync.Mutex
	pods map[string]*Pod
}

func newCluster(pods ...*Pod) *cluster {
	c := &cluster{pods: make(map[string]*Pod)}
	for _, p := range pods {
		c.pods[p.UID] = p
	}
	return c
}

func (c *cluster) Pod(uid, _ string) (*Pod, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.pods[uid]
	return p, ok
}

func (c *cluster) set(uid string, p *Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pods[uid] = p; p == nil {
		delete(c.pods, uid)
	}
}

const podCgroup = "/kubepods/burstable/pod" + testPod + "/" + testID

func webPod(change ...func(*Pod)) *Pod {
	p := &Pod{
		UID: testPod, Name: "web-5d4f-x", Namespace: "prod", NodeName: "n1", Resolved: true,
		Workload: map[string]string{"k8s.replicaset.name": "web-5d4f", "k8s.deployment.name": "web"}, Controller: "web",
		Containers: []Container{{Name: "app", ID: testID}, {Name: "sidecar"}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func labels(kv ...string) func(*Pod) {
	return func(p *Pod) { p.Labels = pairs(kv...) }
}

func annotations(kv ...string) func(*Pod) {
	return func(p *Pod) { p.Annotations = pairs(kv...) }
}

func pairs(kv ...string) map[string]string {
	m := make(map[string]string)
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return m
}

// What decides the graph and the node, the stronger first.
func TestPrecedence(t *testing.T) {
	everything := Evidence{
		Headers:  pairs("x-tollwire-node", "h", "x-tollwire-graph", "hg"),
		Baggage:  "other=1, tollwire.node=b%20b;ttl=1,tollwire.graph=bg",
		Metadata: pairs("tollwire.node", "m"),
	}
	both := webPod(labels("tollwire.io/node", "l", "tollwire.io/graph", "lg"), annotations("node.tollwire.io/app", "a"))
	rules := func(c *Config) {
		c.Rules = []Rule{{Name: "curl", Match: Match{Exe: "curl", Namespace: "prod"}, Graph: "rg", Node: "r-{workload}"}}
	}
	order := func(words ...string) func(*Config) { return func(c *Config) { c.Order = words } }
	for _, c := range []struct {
		name                string
		pod                 *Pod
		call                Evidence
		change              []func(*Config)
		graph, node, source string
	}{
		{"header first", both, everything, nil, "hg", "h", "header"},
		{"baggage", both, Evidence{Baggage: everything.Baggage}, nil, "bg", "b b", "baggage"},
		{"metadata", both, Evidence{Metadata: everything.Metadata}, nil, "lg", "m", "metadata"},
		{"annotation of the container", both, Evidence{}, nil, "lg", "a", "annotation"},
		{"annotation of another container", webPod(annotations("node.tollwire.io/sidecar", "s")), Evidence{}, nil, "", "web", "workload"},
		{"annotation of the pod", webPod(annotations("tollwire.io/node", "with space")), Evidence{}, nil, "", "with space", "annotation"},
		{"label", webPod(labels("tollwire.io/node", "l")), Evidence{}, []func(*Config){rules}, "rg", "l", "label"},
		{"rule", webPod(), Evidence{}, []func(*Config){rules}, "rg", "r-web", "rule:curl"},
		{"workload", webPod(), Evidence{}, nil, "", "web", "workload"},
		{"part-of", webPod(labels("app.kubernetes.io/part-of", "shop")), Evidence{}, nil, "shop", "web", "workload"},
		{"part-of unwanted", webPod(labels("app.kubernetes.io/part-of", "shop")), Evidence{},
			[]func(*Config){func(c *Config) { c.WellKnownLabels = false }}, "", "web", "workload"},
		{"default graph", webPod(), Evidence{}, []func(*Config){func(c *Config) { c.Graph.Default = "ns-{namespace}" }}, "ns-prod", "web", "workload"},
		{"default node", webPod(), Evidence{}, []func(*Config){func(c *Config) { c.Node.Default = "{workload}/{container}" }}, "", "web/app", "default"},
		{"bare pod", webPod(func(p *Pod) { p.Workload, p.Controller = nil, "" }), Evidence{}, nil, "", "web-5d4f-x", "pod"},
		{"controller of another kind", webPod(func(p *Pod) { p.Workload, p.Controller = nil, "ray" }), Evidence{}, nil, "", "ray", "workload"},
		{"keys are configurable", webPod(labels("example.com/stage", "x")), Evidence{},
			[]func(*Config){func(c *Config) { c.Node.Label = "example.com/stage" }}, "", "x", "label"},
		{"order is configurable", both, everything, []func(*Config){order("label", "header")}, "lg", "l", "label"},
		{"nothing left", webPod(), Evidence{}, []func(*Config){order("header")}, "", "", "unknown"},
		{"session when asked for", webPod(), Evidence{Headers: pairs("mcp-session-id", "s1")},
			[]func(*Config){order("session", "default"), func(c *Config) { c.Session.Raw = true }}, "", "s1", "session"},
		{"an empty header says nothing", both, Evidence{Headers: pairs("x-tollwire-node", " \x00")}, nil, "lg", "a", "annotation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			p, id := m.process(100, "/usr/bin/curl", "curl", podCgroup)
			r := m.resolver(append(c.change, func(k *Config) { k.Pods = newCluster(c.pod) })...)
			o := r.Owner(p, id, c.call)
			if o.Graph != c.graph || o.Node != c.node || o.NodeSource != c.source || !o.Complete {
				t.Errorf("got %q / %q by %q, complete %v; want %q / %q by %q", o.Graph, o.Node, o.NodeSource, o.Complete, c.graph, c.node, c.source)
			}
		})
	}
}

func TestService(t *testing.T) {
	for _, c := range []struct {
		name    string
		pod     *Pod
		environ string
		want    resource
	}{
		{"workload", webPod(), "", resource{"web", "prod", "", "prod.web-5d4f-x.app", nil}},
		{"instance label", webPod(labels("app.kubernetes.io/instance", "i", "app.kubernetes.io/name", "n", "app.kubernetes.io/version", "2")), "",
			resource{"i", "prod", "2", "prod.web-5d4f-x.app", nil}},
		{"name label", webPod(labels("app.kubernetes.io/name", "n")), "", resource{"n", "prod", "", "prod.web-5d4f-x.app", nil}},
		{"annotations", webPod(labels("app.kubernetes.io/instance", "i"), annotations("resource.opentelemetry.io/service.name", "s",
			"resource.opentelemetry.io/service.namespace", "ns", "resource.opentelemetry.io/service.version", "3",
			"resource.opentelemetry.io/service.instance.id", "id", "resource.opentelemetry.io/deployment.environment.name", "test",
			"resource.opentelemetry.io/k8s.pod.name", "lie")), "",
			resource{"s", "ns", "3", "id", pairs("deployment.environment.name", "test")}},
		{"the program itself", webPod(annotations("resource.opentelemetry.io/service.name", "s", "resource.opentelemetry.io/a", "1")),
			"X=1\x00OTEL_SERVICE_NAME=mine\x00OTEL_RESOURCE_ATTRIBUTES=a=2,b=3\x00",
			resource{"mine", "prod", "", "prod.web-5d4f-x.app", pairs("a", "2", "b", "3")}},
		{"an SDK's default is no name", webPod(), "OTEL_RESOURCE_ATTRIBUTES=service.name=unknown_service:python\x00",
			resource{"web", "prod", "", "prod.web-5d4f-x.app", nil}},
		{"replica set", webPod(func(p *Pod) { p.Workload = pairs("k8s.replicaset.name", "rs") }), "", resource{"rs", "prod", "", "prod.web-5d4f-x.app", nil}},
		{"cron job before job", webPod(func(p *Pod) { p.Workload = pairs("k8s.job.name", "c-1", "k8s.cronjob.name", "c") }), "",
			resource{"c", "prod", "", "prod.web-5d4f-x.app", nil}},
		{"pod", webPod(func(p *Pod) { p.Workload = nil }), "", resource{"web-5d4f-x", "prod", "", "prod.web-5d4f-x.app", nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			p, id := m.process(100, "/usr/bin/curl", "curl", podCgroup)
			m.write("proc/100/environ", c.environ)
			o := m.resolver(func(k *Config) { k.Pods = newCluster(c.pod) }).Owner(p, id, Evidence{})
			if o.ServiceName != c.want.name || o.ServiceNamespace != c.want.namespace || o.ServiceVersion != c.want.version ||
				o.ServiceInstanceID != c.want.instance || !maps.Equal(o.Attributes, c.want.other) {
				t.Errorf("got %q %q %q %q %v", o.ServiceName, o.ServiceNamespace, o.ServiceVersion, o.ServiceInstanceID, o.Attributes)
			}
		})
	}
}

func TestTenantsAndSessions(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl", podCgroup)
	pods := newCluster(webPod(labels("team", "red")))
	tenants := func(from ...string) func(*Config) {
		return func(c *Config) { c.Pods, c.Tenant.From = pods, from }
	}
	call := Evidence{
		Headers: pairs("x-tenant", "acme", "x-session-id", "sess-1"), Baggage: "tenant=bag",
		Metadata: pairs("customer", "meta"), KeyHash: []byte{1, 2, 3},
	}
	if o := m.resolver(tenants()).Owner(p, id, call); o.Tenant != "" {
		t.Errorf("a tenant that nobody asked for: %q", o.Tenant)
	}
	for from, want := range map[string]string{
		"namespace": "prod", "label:team": "red", "header:X-Tenant": "acme", "baggage:tenant": "bag", "metadata:customer": "meta",
		"label:absent": "",
	} {
		if o := m.resolver(tenants(from)).Owner(p, id, call); o.Tenant != want {
			t.Errorf("%s: %q, want %q", from, o.Tenant, want)
		}
	}
	if o := m.resolver(tenants("label:absent", "namespace")).Owner(p, id, call); o.Tenant != "prod" {
		t.Errorf("the second source was not tried: %q", o.Tenant)
	}
	a, b := m.resolver(tenants("api_key")), m.resolver(tenants("api_key"), func(c *Config) { c.Key = []byte("another") })
	first, second := a.Owner(p, id, call).Tenant, b.Owner(p, id, call).Tenant
	if len(first) != 32 || !isHex(first) || first == second || first != a.Owner(p, id, call).Tenant {
		t.Errorf("hashes of a key: %q, %q", first, second)
	}
	if o := a.Owner(p, id, Evidence{}); o.Tenant != "" {
		t.Errorf("no key, but tenant %q", o.Tenant)
	}
	hashed := m.resolver(tenants("header:x-tenant"), func(c *Config) { c.Tenant.Hash = true }).Owner(p, id, call).Tenant
	if len(hashed) != 32 || hashed == first {
		t.Errorf("hashed header: %q", hashed)
	}
	// The bound: a tenant that has its name keeps it, those after it share one.
	r := m.resolver(tenants("header:x-tenant"), func(c *Config) { c.Tenant.Values = 3 })
	for i := range 10 {
		want := other
		if i < 3 {
			want = fmt.Sprint("t", i)
		}
		for range 2 {
			if o := r.Owner(p, id, Evidence{Headers: pairs("x-tenant", fmt.Sprint("t", i))}); o.Tenant != want || o.Capped != (Capped{Tenant: i >= 3}) {
				t.Errorf("tenant %d: %q, want %q, capped %v", i, o.Tenant, want, o.Capped)
			}
		}
	}
	// So with nodes that calls bring in by themselves.
	r = m.resolver(func(c *Config) { c.Node.Values = 1 })
	r.Owner(p, id, Evidence{Headers: pairs("x-tollwire-node", "one")})
	if o := r.Owner(p, id, Evidence{Headers: pairs("x-tollwire-node", "two")}); o.Node != other || o.NodeSource != "header" || !o.Capped.Node {
		t.Errorf("node %q by %q", o.Node, o.NodeSource)
	}
	// A name that nobody sees, as another goes before it, takes up no room.
	r = m.resolver(func(c *Config) { c.Graph.Values, c.Node.Values = 2, 2 })
	for i := range 5 {
		hidden := fmt.Sprintf("tollwire.node=b%d,tollwire.graph=b%d", i, i)
		if o := r.Owner(p, id, Evidence{Headers: pairs("x-tollwire-node", "one", "x-tollwire-graph", "one"), Baggage: hidden}); o.Node != "one" || o.Capped != (Capped{}) {
			t.Errorf("node %q, capped %v", o.Node, o.Capped)
		}
	}
	if o := r.Owner(p, id, Evidence{Headers: pairs("x-tollwire-graph", "one"), Baggage: "tollwire.node=two,tollwire.graph=two"}); o.Node != "two" || o.Graph != "one" || o.Capped != (Capped{}) {
		t.Errorf("there was no room for a second name: %q, %q, capped %v", o.Graph, o.Node, o.Capped)
	}

	s1 := a.Owner(p, id, call).Session
	if len(s1) != 32 || s1 == "sess-1" {
		t.Errorf("session %q", s1)
	}
	claude := Evidence{Metadata: pairs("user_id", "user_0f_account_1_session_abc-def")}
	raw := m.resolver(func(c *Config) { c.Session.Raw = true })
	if o := raw.Owner(p, id, claude); o.Session != "abc-def" {
		t.Errorf("Claude Code's session: %q", o.Session)
	}
	if o := raw.Owner(p, id, Evidence{Metadata: pairs("session_id", "m1")}); o.Session != "m1" {
		t.Errorf("session of the metadata: %q", o.Session)
	}
	if o := raw.Owner(p, id, Evidence{Session: "m2"}); o.Session != "m2" {
		t.Errorf("MCP's session: %q", o.Session)
	}
	if o := a.Owner(p, id, Evidence{Session: "m2"}); len(o.Session) != 32 {
		t.Errorf("MCP's session: %q, want its hash", o.Session)
	}
}

// A call whose pod nobody has named yet is booked to what is known, and is not
// complete; when the API server answers it is.
func TestComplete(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl", podCgroup)
	pods := newCluster()
	r := m.resolver(func(c *Config) { c.Pods = pods })
	r.Observe(p, id)
	if o := r.Owner(p, id, Evidence{}); o.Complete || o.ContainerID != testID || o.PodUID != testPod || o.Executable != "curl" || o.Node != "" {
		t.Errorf("before the API server's answer: %+v", o)
	}
	// The kubelet has not reported the containers yet: which of them it is decides the node.
	annotated := annotations("node.tollwire.io/sidecar", "s")
	pods.set(testPod, webPod(annotated, func(p *Pod) { p.Containers = []Container{{Name: "app"}, {Name: "sidecar"}} }))
	if o := r.Owner(p, id, Evidence{}); o.Complete || o.PodName != "web-5d4f-x" || o.ContainerName != "" {
		t.Errorf("before the kubelet's report: %+v", o)
	}
	pods.set(testPod, webPod(annotated, func(p *Pod) { p.Containers = []Container{{Name: "app"}, {Name: "sidecar", ID: testID}} }))
	if o := r.Owner(p, id, Evidence{}); !o.Complete || o.ContainerName != "sidecar" || o.Node != "s" {
		t.Errorf("after it: %+v", o)
	}
	// Then the pod dies, and keeps its name.
	pods.set(testPod, nil)
	m.exit(p)
	if o := r.Owner(p, id, Evidence{}); !o.Complete || o.PodName != "web-5d4f-x" || o.Node != "s" {
		t.Errorf("a dead pod's call: %+v", o)
	}
	// What has no pod waits for nothing.
	for pid, cgroup := range map[int]string{102: "/system.slice/a.service", 103: "/system.slice/docker-" + testID + ".scope"} {
		p, id = m.process(pid, "/usr/bin/curl", "curl", cgroup)
		if o := r.Owner(p, id, Evidence{}); !o.Complete || o.PodName != "" {
			t.Errorf("%s: %+v", cgroup, o)
		}
	}
}

// Where the path of a container does not name its pod, its own id does.
func TestPodByContainer(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl", "/mine/"+testID)
	r := m.resolver(func(c *Config) { c.Pods = byContainer{testID: webPod()} })
	if o := r.Owner(p, id, Evidence{}); !o.Complete || o.PodUID != testPod || o.ContainerName != "app" || o.Node != "web" {
		t.Errorf("%+v", o)
	}
}

// byContainer knows pods by a container's id only.
type byContainer map[string]*Pod

func (b byContainer) Pod(_, id string) (*Pod, bool) {
	p, ok := b[id]
	return p, ok
}

// A pod whose owner is still being asked for is booked to what is known, and is
// not complete.
func TestUnresolved(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl", podCgroup)
	pods := newCluster(webPod(func(p *Pod) {
		p.Resolved, p.Workload, p.Controller = false, pairs("k8s.job.name", "nightly-1"), "nightly-1"
	}))
	r := m.resolver(func(c *Config) { c.Pods = pods })
	if o := r.Owner(p, id, Evidence{}); o.Complete || o.Node != "nightly-1" || o.PodName != "web-5d4f-x" {
		t.Errorf("%+v", o)
	}
	pods.set(testPod, webPod(func(p *Pod) {
		p.Workload, p.Controller = pairs("k8s.job.name", "nightly-1", "k8s.cronjob.name", "nightly"), "nightly"
	}))
	if o := r.Owner(p, id, Evidence{}); !o.Complete || o.Node != "nightly" {
		t.Errorf("%+v", o)
	}
}

// While the API server has not answered, the runtime names the pod; what the API
// server says counts from then on.
func TestFallback(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl", podCgroup)
	server := newCluster()
	runtime := newCluster(webPod(labels("tollwire.io/node", "front"), func(p *Pod) { p.NodeName = "" }))
	r := m.resolver(func(c *Config) { c.Pods, c.Fallback, c.NodeName = server, runtime, "n1" })
	if o := r.Owner(p, id, Evidence{}); o.Complete || o.Node != "front" || o.PodName != "web-5d4f-x" || o.NodeName != "n1" {
		t.Errorf("by the runtime: %+v", o)
	}
	server.set(testPod, webPod(labels("tollwire.io/node", "changed")))
	if o := r.Owner(p, id, Evidence{}); !o.Complete || o.Node != "changed" {
		t.Errorf("by the API server: %+v", o)
	}
	server.set(testPod, nil)
	if o := r.Owner(p, id, Evidence{}); !o.Complete || o.Node != "changed" {
		t.Errorf("after that: %+v", o)
	}
	// Without an API server the runtime's word is the last.
	r = m.resolver(func(c *Config) { c.Fallback = runtime })
	if o := r.Owner(p, id, Evidence{}); !o.Complete || o.Node != "front" {
		t.Errorf("without an API server: %+v", o)
	}
	runtime.set(testPod, nil)
	if o := r.Owner(p, id, Evidence{}); !o.Complete || o.Node != "front" {
		t.Errorf("a dead pod: %+v", o)
	}
}

// Of the baggage what graph and node are named by is carried, and what is asked for.
func TestBaggage(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl", "/")
	call := Evidence{Baggage: "tollwire.node=planner,tier=gold,token=secret,org=acme,empty="}
	secret := func(c *Config) { c.Tenant.From, c.Tenant.Hash = []string{"baggage:org"}, true }
	if o := m.resolver(secret).Owner(p, id, call); !maps.Equal(o.Baggage, pairs("tollwire.node", "planner")) || len(o.Tenant) != 32 {
		t.Errorf("by default: %v, tenant %q", o.Baggage, o.Tenant)
	}
	wanted := func(c *Config) { c.Baggage = []string{"tier", "empty", "absent"} }
	if o := m.resolver(wanted).Owner(p, id, call); !maps.Equal(o.Baggage, pairs("tollwire.node", "planner", "tier", "gold")) {
		t.Errorf("with tier: %v", o.Baggage)
	}
	c := Defaults()
	secret(&c)
	wanted(&c)
	if got, want := c.BaggageKeys(), []string{"absent", "empty", "org", "tier", "tollwire.graph", "tollwire.node"}; !slices.Equal(got, want) {
		t.Errorf("keys %v, want %v", got, want)
	}
}

// A list of attributes is bounded, and the same ones are kept each time.
func TestManyAttributes(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl", podCgroup)
	m.write("proc/100/environ", "OTEL_RESOURCE_ATTRIBUTES=a00=mine,zz="+strings.Repeat("z", 1000)+"\x00")
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("resource.opentelemetry.io/a%02d", i), "theirs")
	}
	r := m.resolver(func(k *Config) { k.Pods = newCluster(webPod(annotations(many...))) })
	o := r.Owner(p, id, Evidence{})
	if len(o.Attributes) != maxAttributes || o.Attributes["a00"] != "mine" || o.Attributes["a01"] != "theirs" || len(o.Attributes["zz"]) != maxName {
		t.Errorf("%d attributes: %v", len(o.Attributes), o.Attributes)
	}
	if again := r.Owner(p, id, Evidence{}); !maps.Equal(o.Attributes, again.Attributes) {
		t.Errorf("then %v", again.Attributes)
	}
}

func TestReload(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl", "/")
	r := m.resolver()
	c := m.config()
	c.Rules = []Rule{{Name: "new", Match: Match{Exe: "curl"}, Node: "fresh"}}
	if err := r.Reload(c); err != nil {
		t.Fatal(err)
	}
	if o := r.Owner(p, id, Evidence{}); o.Node != "fresh" {
		t.Errorf("node %q", o.Node)
	}
	c.Rules[0].Match.Exe = "re:("
	if err := r.Reload(c); err == nil {
		t.Error("a broken rule was taken")
	}
	if o := r.Owner(p, id, Evidence{}); o.Node != "fresh" {
		t.Errorf("a refused configuration changed the node to %q", o.Node)
	}
}

func TestHeaders(t *testing.T) {
	c := Defaults()
	c.Session.Header = nil
	c.Tenant.From = []string{"header:X-Tenant", "namespace"}
	c.Rules = []Rule{{Name: "r", Match: Match{Header: pairs("X-Agent", "*")}, Node: "n"}}
	if got, want := c.Headers(), []string{"x-agent", "x-tenant", "x-tollwire-graph", "x-tollwire-node"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for key, want := range map[string]bool{
		"resource.opentelemetry.io/service.name": true, "tollwire.io/node": true, "graph.tollwire.io/app": true,
		"kubectl.kubernetes.io/last-applied-configuration": false,
	} {
		if c.KeepAnnotation(key) != want {
			t.Errorf("KeepAnnotation(%q) is not %v", key, want)
		}
	}
}

func TestConcurrent(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl", podCgroup)
	pods := newCluster(webPod())
	r := m.resolver(func(c *Config) { c.Pods = pods })
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 200 {
				q := p
				q.PID += uint32(n % 3)
				r.Observe(q, id)
				r.Owner(q, id, Evidence{Headers: pairs("x-tollwire-node", fmt.Sprint(i, n))})
				if n%20 == i {
					pods.set(testPod, webPod())
					r.Reload(m.config())
				}
				r.Stats()
			}
		})
	}
	all.Wait()
}
