package attribution

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Rule books calls to a node by what their process is. Of the rules that match a
// call the first one counts.
//
//   - name: planner
//     match:
//     exe: python3*
//     command: re:--role[ =](?P<role>\w+)
//     graph: research
//     node: "{role}"
//
// Graph and Node are templates. {exe}, {unit}, {container}, {pod}, {namespace},
// {workload} and {service} stand for what is known of the process, {NAME} for a
// named group of one of the rule's expressions, {header.NAME} for a header that
// the rule matches. A rule whose template has a name without a value does not match.
type Rule struct {
	Name  string `yaml:"name"` // tollwire.node.source is then rule:NAME
	Match Match  `yaml:"match"`
	Graph string `yaml:"graph"`
	Node  string `yaml:"node"`
}

// Match is a rule's conditions; all that are given must hold. A pattern is a glob
// that the whole value must match, in which * is any run of characters and ? any
// one; or, after "re:", a regular expression (RE2) that must match somewhere.
type Match struct {
	// Exe is the executable: its path as the process sees it, or where the pattern is
	// a glob without a slash, the path's last element.
	Exe       string            `yaml:"exe"`
	Command   string            `yaml:"command"`   // arguments with one space between them, the first 4 KiB
	Unit      string            `yaml:"unit"`      // systemd unit: agent@planner.service
	Cgroup    string            `yaml:"cgroup"`    // path below the cgroup mount
	Namespace string            `yaml:"namespace"` // Kubernetes'
	Workload  string            `yaml:"workload"`
	Container string            `yaml:"container"` // name
	Header    map[string]string `yaml:"header"`    // request headers by name
}

// pattern is a compiled pattern.
type pattern struct {
	text string // as written
	re   *regexp.Regexp
	base bool // match the last path element only
}

func compilePattern(s string) (pattern, error) {
	if expr, ok := strings.CutPrefix(s, "re:"); ok {
		re, err := regexp.Compile(expr)
		if err != nil {
			return pattern{}, fmt.Errorf("want a regular expression after re: (%w)", err)
		}
		return pattern{text: s, re: re}, nil
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for _, r := range s {
		switch r {
		case '*':
			b.WriteString(`.*`)
		case '?':
			b.WriteString(`.`)
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return pattern{}, fmt.Errorf("want a glob (%w)", err)
	}
	return pattern{text: s, re: re}, nil
}

// match returns whether v matches, and puts the values of named groups into vars.
func (p *pattern) match(v string, vars map[string]string) bool {
	if p.base {
		if i := strings.LastIndexByte(v, '/'); i >= 0 {
			v = v[i+1:]
		}
	}
	groups := p.re.SubexpNames()
	if len(groups) == 1 {
		return p.re.MatchString(v)
	}
	m := p.re.FindStringSubmatch(v)
	for i := 1; i < len(m); i++ {
		if groups[i] != "" {
			vars[groups[i]] = strings.Clone(clean(m[i], maxName)) // of what is not kept
		}
	}
	return m != nil
}

// rule is a compiled Rule.
type rule struct {
	source      string
	conditions  []condition
	graph, node template
}

// condition is one pattern and the value it is for.
type condition struct {
	key string // "exe", "header.x-agent"
	pattern
}

// variables are the names that every template may use.
var variables = []string{"exe", "unit", "container", "pod", "namespace", "workload", "service"}

// compileRule returns every error of the rule, each with its key below the rule.
func compileRule(r *Rule) (*rule, []Invalid) {
	var all []Invalid
	bad := func(key, format string, a ...any) { all = append(all, Invalid{key, fmt.Sprintf(format, a...)}) }

	if r.Name == "" || clean(r.Name, maxName) != r.Name {
		bad("name", "is %q: want a name; tollwire.node.source is then rule:NAME", r.Name)
	}
	c := &rule{source: "rule:" + r.Name}
	groups := make(map[string]bool)
	add := func(key, s string) {
		if s == "" {
			return
		}
		p, err := compilePattern(s)
		if err != nil {
			bad("match."+key, "is %q: %v", s, err)
			return
		}
		p.base = key == "exe" && !strings.Contains(s, "/") && !strings.HasPrefix(s, "re:")
		for _, g := range p.re.SubexpNames() {
			groups[g] = g != ""
		}
		c.conditions = append(c.conditions, condition{key, p})
	}
	m := &r.Match
	add("exe", m.Exe)
	add("command", m.Command)
	add("unit", m.Unit)
	add("cgroup", m.Cgroup)
	add("namespace", m.Namespace)
	add("workload", m.Workload)
	add("container", m.Container)
	for _, name := range slices.Sorted(maps.Keys(m.Header)) {
		if why := BadHeader(name); why != "" {
			bad("match.header", "has %q: %s", name, why)
			continue
		}
		if m.Header[name] == "" {
			bad("match.header."+name, "is empty: want a pattern, * for any value")
			continue
		}
		key := "header." + strings.ToLower(name)
		add(key, m.Header[name])
		groups[key] = true
	}
	if len(c.conditions) == 0 && len(all) == 0 {
		bad("match", "is empty: want at least one of exe, command, unit, cgroup, namespace, workload, container, header")
	}
	if r.Graph == "" && r.Node == "" {
		bad("node", "is empty, and so is graph: want at least one of them")
	}
	known := func(name string) bool { return groups[name] }
	var err error
	if c.graph, err = parseTemplate(r.Graph, known); err != nil {
		bad("graph", "is %q: %v", r.Graph, err)
	}
	if c.node, err = parseTemplate(r.Node, known); err != nil {
		bad("node", "is %q: %v", r.Node, err)
	}
	return c, all
}

// match returns the graph and node that the rule gives, and whether it matches: whether
// all its conditions hold, which give the values of their groups. Names in the
// templates stand for value.
func (r *rule) match(holds func(c *condition, vars map[string]string) bool, value func(key string) string) (graph, node string, ok bool) {
	vars := make(map[string]string)
	for i := range r.conditions {
		if !holds(&r.conditions[i], vars) {
			return "", "", false
		}
	}
	get := func(name string) string {
		if v, ok := vars[name]; ok {
			return v
		}
		return value(name)
	}
	graph, ok = r.graph.expand(get)
	if !ok {
		return "", "", false
	}
	node, ok = r.node.expand(get)
	return graph, node, ok
}

// template is text with names in braces.
type template []templatePart

type templatePart struct{ text, name string } // one of them

var errTemplate = errors.New("want {NAME} with a NAME that is known here")

// parseTemplate reads a template; also says which names may stand in it beside
// the variables.
func parseTemplate(s string, also func(name string) bool) (template, error) {
	var t template
	for s != "" {
		text, rest, ok := strings.Cut(s, "{")
		if strings.Contains(text, "}") {
			return nil, fmt.Errorf("has a } without a {: %w", errTemplate)
		}
		if text != "" {
			t = append(t, templatePart{text: text})
		}
		if !ok {
			return t, nil
		}
		name, after, ok := strings.Cut(rest, "}")
		if !ok {
			return nil, fmt.Errorf("has a { without a }: %w", errTemplate)
		}
		if !slices.Contains(variables, name) && (also == nil || !also(name)) {
			return nil, fmt.Errorf("has {%s}: want one of {%s}, or a named group or {header.NAME} of the same rule", name, strings.Join(variables, "}, {"))
		}
		t = append(t, templatePart{name: name})
		s = after
	}
	return t, nil
}

// expand returns the text, and false when one of its names has no value.
func (t template) expand(value func(name string) string) (string, bool) {
	if len(t) == 1 && t[0].name == "" {
		return t[0].text, true
	}
	var b strings.Builder
	for _, p := range t {
		if p.name == "" {
			b.WriteString(p.text)
			continue
		}
		v := value(p.name)
		if v == "" {
			return "", false
		}
		b.WriteString(v)
	}
	return clean(b.String(), maxName), true
}
