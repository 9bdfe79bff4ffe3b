package attribution

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config says how processes are found and by what a call is booked. The fields
// without a YAML key are the agent's own to fill in.
type Config struct {
	Proc       string `yaml:"proc"`        // where the machine's /proc is mounted
	CgroupRoot string `yaml:"cgroup_root"` // where the machine's cgroups are mounted; empty: found by itself
	HostRoot   string `yaml:"host_root"`   // the machine's root folder, for the runtimes' files; empty: found by itself
	// Environ: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES of a program's
	// environment are read, and nothing else of it.
	Environ bool `yaml:"environ"`

	// Order is what decides the graph and the node, the first that names one winning:
	// header, baggage, metadata, session (the call's own evidence), annotation, label
	// (of the container, of the pod), rule, default.
	Order []string `yaml:"order"`
	Graph Naming   `yaml:"graph"`
	Node  Naming   `yaml:"node"`
	Rules []Rule   `yaml:"rules"`

	Session Session `yaml:"session"`
	Tenant  Tenant  `yaml:"tenant"`

	// Baggage: keys of W3C baggage that are copied to records and spans, beside those
	// by which graph and node are named. What it says may be secret.
	Baggage []string `yaml:"baggage"`

	// WellKnownLabels: app.kubernetes.io/instance, name and version say what a pod's
	// service is called, part-of what its graph is.
	WellKnownLabels bool     `yaml:"well_known_labels"`
	PodLabels       []string `yaml:"pod_labels"` // copied to records, metrics and spans

	// Wait is how long a call may wait for the API server to name its pod.
	Wait time.Duration `yaml:"wait"`

	Pods     Pods         `yaml:"-"` // by the API server (attribution/kube); nil: there is none
	Fallback Pods         `yaml:"-"` // by the runtime (attribution/cri), while the API server has not answered; or nil
	NodeName string       `yaml:"-"` // k8s.node.name, where a pod's source does not say
	Key      []byte       `yaml:"-"` // of the hashes (HMAC-SHA256); empty: random, other at each start
	Logger   *slog.Logger `yaml:"-"`
}

// Naming is where a graph's or a node's name may stand.
type Naming struct {
	Header   []string `yaml:"header"`   // request headers
	Baggage  []string `yaml:"baggage"`  // keys of W3C baggage
	Metadata []string `yaml:"metadata"` // keys of the request body's metadata
	// Label is the key of the pod's label or annotation, and of a docker container's
	// label. With the key tollwire.io/node, the pod's annotation
	// node.tollwire.io/CONTAINER names one container's.
	Label string `yaml:"label"`
	// Default is a template for when nothing else named one. Empty: for a node what
	// the call came from, for a graph the label app.kubernetes.io/part-of or the
	// compose project, and none.
	Default string `yaml:"default"`
	// Values bounds how many distinct names calls may bring in by their own evidence;
	// further ones are "other".
	Values int `yaml:"values"`
}

// Session is where the id of a conversation may stand. It is kept as a keyed hash
// unless Raw is set.
type Session struct {
	Header   []string `yaml:"header"`
	Metadata []string `yaml:"metadata"`
	Raw      bool     `yaml:"raw"`
}

// Tenant is who is behind a call.
type Tenant struct {
	// From is tried in order: namespace, label:KEY of the pod, header:NAME of the
	// request, baggage:KEY, metadata:KEY, api_key (always as a keyed hash). Empty: no
	// tenants.
	From []string `yaml:"from"`
	// Hash: what headers, baggage and metadata say is kept as a keyed hash only.
	Hash bool `yaml:"hash"`
	// Values bounds how many tenants are told apart; further ones are "other".
	Values int `yaml:"values"`
}

// Defaults is the configuration that a file is laid over.
func Defaults() Config {
	return Config{
		Proc:    "/proc",
		Environ: true,
		Order:   []string{"header", "baggage", "metadata", "annotation", "label", "rule", "default"},
		Graph: Naming{
			Header: []string{"x-tollwire-graph"}, Baggage: []string{"tollwire.graph"}, Metadata: []string{"tollwire.graph", "tollwire_graph"},
			Label: "tollwire.io/graph", Values: 100,
		},
		Node: Naming{
			Header: []string{"x-tollwire-node"}, Baggage: []string{"tollwire.node"}, Metadata: []string{"tollwire.node", "tollwire_node"},
			Label: "tollwire.io/node", Values: 1000,
		},
		Session: Session{
			// Claude Code; Codex; opencode; MCP; Amazon Bedrock AgentCore; and what others agreed on.
			Header: []string{"x-claude-code-session-id", "session_id", "session-id", "x-session-affinity", "mcp-session-id",
				"x-amzn-bedrock-agentcore-runtime-session-id", "x-session-id"},
			Metadata: []string{"session_id"},
		},
		Tenant:          Tenant{Values: 100},
		WellKnownLabels: true,
		Wait:            time.Minute,
	}
}

// steps are the words of Config.Order.
var steps = []string{"header", "baggage", "metadata", "session", "annotation", "label", "rule", "default"}

// CgroupMounts returns where the machine's cgroups may be mounted, the likeliest first.
func (c *Config) CgroupMounts() []string {
	if c.CgroupRoot != "" {
		return []string{c.CgroupRoot}
	}
	host := c.HostRoot
	if host == "" {
		host = HostRoot(c.Proc)
	}
	return []string{filepath.Join(host, "sys/fs/cgroup"), "/sys/fs/cgroup"}
}

// Headers returns the request headers that the configuration reads, lower case:
// what the decoder must keep of a call, and no more.
func (c *Config) Headers() []string {
	var all []string
	add := func(names ...string) {
		for _, n := range names {
			all = append(all, strings.ToLower(n))
		}
	}
	add(c.Graph.Header...)
	add(c.Node.Header...)
	add(c.Session.Header...)
	for _, from := range c.Tenant.From {
		if name, ok := strings.CutPrefix(from, "header:"); ok {
			add(name)
		}
	}
	for _, r := range c.Rules {
		for name := range r.Match.Header {
			add(name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// BaggageKeys returns the keys of W3C baggage that the configuration reads: what the
// decoder must keep of a call's, and no more.
func (c *Config) BaggageKeys() []string {
	all := c.carried()
	for _, from := range c.Tenant.From {
		if key, ok := strings.CutPrefix(from, "baggage:"); ok {
			all = append(all, key)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// carried are the keys of baggage that records and spans show.
func (c *Config) carried() []string { return slices.Concat(c.Graph.Baggage, c.Node.Baggage, c.Baggage) }

// KeepAnnotation says whether the configuration reads a pod's annotation. A watcher
// of pods keeps no other.
func (c *Config) KeepAnnotation(key string) bool {
	if strings.HasPrefix(key, resourcePrefix) {
		return true
	}
	for _, n := range []Naming{c.Graph, c.Node} {
		if key == n.Label || strings.HasPrefix(key, containerKey(n.Label, "")) {
			return true
		}
	}
	return false
}

// containerKey returns the annotation that names one container's graph or node:
// tollwire.io/node is node.tollwire.io/CONTAINER.
func containerKey(label, container string) string {
	prefix, name, ok := strings.Cut(label, "/")
	if !ok {
		return label + "/" + container
	}
	return name + "." + prefix + "/" + container
}

// Invalid is a value that cannot be worked with.
type Invalid struct {
	Key  string // its path below Config, as in the file: rules[2].match.exe
	Want string // what was found and what was expected
}

func (i Invalid) Error() string { return i.Key + " " + i.Want }

// Validate returns every value that cannot be worked with.
func (c *Config) Validate() []Invalid {
	var all []Invalid
	bad := func(key, format string, a ...any) { all = append(all, Invalid{key, fmt.Sprintf(format, a...)}) }

	for i, s := range c.Order {
		if !slices.Contains(steps, s) {
			bad(fmt.Sprintf("order[%d]", i), "is %q: want one of %s", s, strings.Join(steps, ", "))
		} else if slices.Index(c.Order, s) != i {
			bad(fmt.Sprintf("order[%d]", i), "is %q for the second time: want each once", s)
		}
	}
	for _, n := range []struct {
		key string
		Naming
	}{{"graph", c.Graph}, {"node", c.Node}} {
		headers(bad, n.key+".header", n.Header)
		if n.Label != "" && !isLabelKey(n.Label) {
			bad(n.key+".label", "is %q: want a label's key such as tollwire.io/%s", n.Label, n.key)
		}
		if n.Values < 0 || n.Values > maxValues {
			bad(n.key+".values", "is %d: want 0 (as many as there are by default) to %d", n.Values, maxValues)
		}
		if _, err := parseTemplate(n.Default, nil); err != nil {
			bad(n.key+".default", "is %q: %v", n.Default, err)
		}
	}
	headers(bad, "session.header", c.Session.Header)
	for i, from := range c.Tenant.From {
		if _, err := parseTenantSource(from); err != nil {
			bad(fmt.Sprintf("tenant.from[%d]", i), "is %q: %v", from, err)
		}
	}
	if c.Tenant.Values < 0 || c.Tenant.Values > maxValues {
		bad("tenant.values", "is %d: want 0 (as many as there are by default) to %d", c.Tenant.Values, maxValues)
	}
	for i, k := range c.Baggage {
		if !isToken(k) {
			bad(fmt.Sprintf("baggage[%d]", i), "is %q: want a key of W3C baggage such as user.tier", k)
		}
	}
	for i, k := range c.PodLabels {
		if !isLabelKey(k) {
			bad(fmt.Sprintf("pod_labels[%d]", i), "is %q: want a label's key such as example.com/gpu", k)
		}
	}
	if c.Wait < 0 || c.Wait > 10*time.Minute {
		bad("wait", "is %v: want 0s to 10m", c.Wait)
	}
	names := make(map[string]int)
	for i := range c.Rules {
		key := fmt.Sprintf("rules[%d]", i)
		if _, errs := compileRule(&c.Rules[i]); len(errs) > 0 {
			for _, e := range errs {
				bad(key+"."+e.Key, "%s", e.Want)
			}
		}
		if first, ok := names[c.Rules[i].Name]; ok {
			bad(key+".name", "is %q, as that of rules[%d]: want each once, it is what tollwire.node.source says", c.Rules[i].Name, first)
		} else {
			names[c.Rules[i].Name] = i
		}
	}
	return all
}

// maxValues is the most distinct names that any bound may allow.
const maxValues = 100_000

func headers(bad func(string, string, ...any), key string, names []string) {
	for i, n := range names {
		if why := BadHeader(n); why != "" {
			bad(fmt.Sprintf("%s[%d]", key, i), "is %q: %s", n, why)
		}
	}
}

// BadHeader returns why name cannot stand on an allow-list of headers, or "".
func BadHeader(name string) string {
	switch strings.ToLower(name) {
	case "authorization", "proxy-authorization", "cookie", "api-key", "x-api-key", "x-goog-api-key", "ocp-apim-subscription-key", "x-amz-security-token":
		return "a credential is never read; want another header, or api_key for a tenant"
	}
	if !isToken(name) {
		return "want the name of a header"
	}
	return ""
}

// isToken says whether s may be the name of a header or the key of a baggage's member.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// isLabelKey says whether s may be the key of a Kubernetes label or annotation.
func isLabelKey(s string) bool {
	prefix, name, ok := strings.Cut(s, "/")
	if !ok {
		prefix, name = "", s
	}
	if ok && (prefix == "" || len(prefix) > 253) || name == "" || len(name) > 63 {
		return false
	}
	for _, part := range []string{prefix, name} {
		for i := range len(part) {
			c := part[i]
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			case (c == '-' || c == '.' || c == '_') && i > 0 && i < len(part)-1:
			default:
				return false
			}
		}
	}
	return true
}
