package attribution

import (
	"cmp"
	"maps"
	"strings"
)

// policy is a configuration made ready: what a call is booked by. It can be
// exchanged while the Resolver runs.
type policy struct {
	cfg         Config
	rules       []*rule
	commands    []pattern // the rules' of command lines
	tenants     []tenantSource
	baggage     []string // keys that are carried
	graph, node naming
	tenant      *distinct
}

// naming is a Naming made ready.
type naming struct {
	Naming
	preset template
	values *distinct
}

func newPolicy(c Config) (*policy, error) {
	if bad := c.Validate(); len(bad) > 0 {
		return nil, bad[0]
	}
	d := Defaults()
	if len(c.Order) == 0 {
		c.Order = d.Order
	}
	p := &policy{cfg: c, baggage: c.carried()}
	for i := range c.Rules {
		r, _ := compileRule(&c.Rules[i])
		p.rules = append(p.rules, r)
		for _, c := range r.conditions {
			if c.key == "command" {
				p.commands = append(p.commands, c.pattern)
			}
		}
	}
	for _, from := range c.Tenant.From {
		s, _ := parseTenantSource(from)
		p.tenants = append(p.tenants, s)
	}
	bound := func(n, preset int) *distinct {
		if n == 0 {
			n = preset
		}
		return newDistinct(n)
	}
	preset, _ := parseTemplate(c.Graph.Default, nil)
	p.graph = naming{c.Graph, preset, bound(c.Graph.Values, d.Graph.Values)}
	preset, _ = parseTemplate(c.Node.Default, nil)
	p.node = naming{c.Node, preset, bound(c.Node.Values, d.Node.Values)}
	p.tenant = bound(c.Tenant.Values, d.Tenant.Values)
	return p, nil
}

// subject is all that a decision looks at.
type subject struct {
	owner   *Owner
	process *process
	pod     *Pod // nil when unknown or none
	call    Evidence
	baggage map[string]string // parsed when first asked for
}

func (s *subject) header(names []string) string {
	for _, n := range names {
		if v := clean(s.call.Headers[strings.ToLower(n)], maxName); v != "" {
			return v
		}
	}
	return ""
}

func (s *subject) metadata(keys []string) string {
	for _, k := range keys {
		if v := clean(s.call.Metadata[k], maxName); v != "" {
			return v
		}
	}
	return ""
}

func (s *subject) member(keys []string) string {
	for _, k := range keys {
		if v := s.members()[k]; v != "" {
			return v
		}
	}
	return ""
}

func (s *subject) members() map[string]string {
	if s.baggage == nil && s.call.Baggage != "" {
		s.baggage = make(map[string]string)
		eachMember(s.call.Baggage, func(k, v string) { s.baggage[k] = clean(v, maxName) })
	}
	return s.baggage
}

// annotation is the one that names this container, or else the whole pod.
func (s *subject) annotation(label string) string {
	if s.pod == nil || label == "" {
		return ""
	}
	if s.owner.ContainerName != "" {
		if v := clean(s.pod.Annotations[containerKey(label, s.owner.ContainerName)], maxName); v != "" {
			return v
		}
	}
	return clean(s.pod.Annotations[label], maxName)
}

func (s *subject) label(key string) string {
	if key == "" {
		return ""
	}
	if s.pod != nil {
		return clean(s.pod.Labels[key], maxName)
	}
	if s.process.files != nil {
		return clean(s.process.files.labels[key], maxName)
	}
	return ""
}

// value returns what a rule's key stands for.
func (s *subject) value(key string) string {
	switch o := s.owner; key {
	case "exe":
		return o.Executable
	case "unit":
		return o.Unit
	case "cgroup":
		return o.Cgroup
	case "namespace":
		return o.Namespace
	case "pod":
		return o.PodName
	case "container":
		return cmp.Or(o.ContainerName, o.RuntimeName)
	case "workload":
		return s.workload()
	case "service":
		return o.ServiceName
	}
	if name, ok := strings.CutPrefix(key, "header."); ok {
		return clean(s.call.Headers[name], maxName)
	}
	return ""
}

// holds reports whether a rule's condition does, and puts the values of its groups into
// vars. It sees the executable's whole path.
func (s *subject) holds(c *condition, vars map[string]string) bool {
	var v string
	switch c.key {
	case "command": // was held against it when the process was read
		groups, ok := s.process.commands[c.text]
		maps.Copy(vars, groups)
		return ok
	case "exe":
		v = cmp.Or(s.process.exePath, s.process.exe)
	default:
		v = s.value(c.key)
	}
	return v != "" && c.match(v, vars)
}

// workload is the name of what the user deployed: of whatever controls the pod.
func (s *subject) workload() string {
	if s.pod != nil && s.pod.Controller != "" {
		return s.pod.Controller
	}
	return firstWorkload(s.owner.Workload)
}

// apply fills in what the policy decides: tenant, session, graph and node.
func (p *policy) apply(s *subject, key []byte) {
	o := s.owner
	o.Session = s.session(p, key)
	o.Tenant, o.Capped.Tenant = p.tenant.admit(s.tenant(p, key))
	o.Baggage = pick(s.members(), p.baggage)
	if s.pod != nil {
		o.PodLabels = pick(s.pod.Labels, p.cfg.PodLabels)
	}
	for _, step := range p.cfg.Order {
		graph, node, source := p.step(step, s)
		if o.Graph == "" {
			o.Graph, o.Capped.Graph = p.graph.take(graph, step)
		}
		if o.Node == "" && node != "" {
			o.Node, o.Capped.Node = p.node.take(node, step)
			o.NodeSource = source
		}
		if o.Graph != "" && o.Node != "" {
			return
		}
	}
	if o.Node == "" {
		o.NodeSource = "unknown"
	}
}

// take returns the name that a step gave, within the bound if the call brought it in.
func (n *naming) take(name, step string) (taken string, capped bool) {
	switch step {
	case "header", "baggage", "metadata", "session":
		return n.values.admit(name)
	}
	return name, false
}

// step is one word of Config.Order: what it says of graph and node, and what then
// is the source of the node.
func (p *policy) step(step string, s *subject) (graph, node, source string) {
	switch step {
	case "header":
		return s.header(p.graph.Header), s.header(p.node.Header), step
	case "baggage":
		return s.member(p.graph.Baggage), s.member(p.node.Baggage), step
	case "metadata":
		return s.metadata(p.graph.Metadata), s.metadata(p.node.Metadata), step
	case "session":
		return "", s.owner.Session, step
	case "annotation":
		return s.annotation(p.graph.Label), s.annotation(p.node.Label), step
	case "label":
		return s.label(p.graph.Label), s.label(p.node.Label), step
	case "rule":
		for _, r := range p.rules {
			if graph, node, ok := r.match(s.holds, s.value); ok {
				return graph, node, r.source
			}
		}
	case "default":
		node, source = p.defaultNode(s)
		return p.defaultGraph(s), node, source
	}
	return "", "", ""
}

func (p *policy) defaultGraph(s *subject) string {
	if len(p.graph.preset) > 0 {
		graph, _ := p.graph.preset.expand(s.value)
		return graph
	}
	if s.pod != nil && p.cfg.WellKnownLabels {
		if graph := s.pod.Labels["app.kubernetes.io/part-of"]; graph != "" {
			return graph
		}
	}
	if s.process.files != nil {
		return s.process.files.project
	}
	return ""
}

// defaultNode is where a call came from: in Kubernetes the workload, the container
// of a pod that nothing controls (or that the API server has not named yet);
// elsewhere the service that the program says it is, its container, its systemd
// service, its executable.
func (p *policy) defaultNode(s *subject) (node, source string) {
	if len(p.node.preset) > 0 {
		if node, ok := p.node.preset.expand(s.value); ok {
			return node, "default"
		}
	}
	o := s.owner
	if o.PodUID != "" {
		if name := s.workload(); name != "" {
			return name, "workload"
		}
		if s.pod != nil && s.pod.Resolved {
			return o.PodName, "pod"
		}
		return o.ContainerName, "container"
	}
	for _, c := range []struct{ name, source string }{
		{s.process.env.name, "service"},
		{cmp.Or(o.ContainerName, o.RuntimeName), "container"},
		{unitName(o.Unit), "unit"},
		{o.Executable, "executable"},
	} {
		if c.name != "" {
			return c.name, c.source
		}
	}
	return "", ""
}

// unitName is the name of a systemd service. Other units (the scope of a login)
// name nothing.
func unitName(unit string) string {
	name, ok := strings.CutSuffix(unit, ".service")
	if !ok {
		return ""
	}
	return clean(name, maxName)
}

func (s *subject) session(p *policy, key []byte) string {
	id := cmp.Or(s.header(p.cfg.Session.Header), s.metadata(p.cfg.Session.Metadata))
	if id == "" {
		// Claude Code puts its session into Anthropic's user_id.
		if _, after, ok := strings.Cut(s.call.Metadata["user_id"], "_session_"); ok {
			id = clean(after, maxName)
		}
	}
	if id == "" {
		id = clean(s.call.Session, maxName)
	}
	if p.cfg.Session.Raw {
		return id
	}
	return hash(key, "session", id)
}

func (s *subject) tenant(p *policy, key []byte) string {
	for _, from := range p.tenants {
		var v string
		stated := true // by the call, not by the cluster
		switch from.kind {
		case "namespace":
			v, stated = s.owner.Namespace, false
		case "label":
			v, stated = s.label(from.key), false
		case "header":
			v = s.header([]string{from.key})
		case "baggage":
			v = s.member([]string{from.key})
		case "metadata":
			v = s.metadata([]string{from.key})
		case "api_key":
			// A hash already; hashed again, so that it is no other place's.
			if v = hash(key, "api_key", string(s.call.KeyHash)); v != "" {
				return v
			}
		}
		if v == "" {
			continue
		}
		if stated && p.cfg.Tenant.Hash {
			return hash(key, "tenant", v)
		}
		return v
	}
	return ""
}

// pick returns the wanted of all, nil when there are none.
func pick(all map[string]string, wanted []string) map[string]string {
	var m map[string]string
	for _, k := range wanted {
		if v := all[k]; v != "" {
			if m == nil {
				m = make(map[string]string, len(wanted))
			}
			m[k] = v
		}
	}
	return m
}
