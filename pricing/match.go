package pricing

import (
	"regexp"
	"strings"
)

// matcher says whether a model's name is meant. Any of its lists may hold; names
// are compared in lower case.
type matcher struct {
	exact, prefix, suffix, contains []string
	regex                           []*regexp.Regexp
	all                             [][]*matcher // groups whose members must all hold
}

// match reports whether the lower-case name is meant.
func (m *matcher) match(name string) bool {
	for _, s := range m.exact {
		if name == s {
			return true
		}
	}
	return m.matchRule(name)
}

// matchRule is match without the exact names, which are looked up in a map.
func (m *matcher) matchRule(name string) bool {
	for _, s := range m.prefix {
		if strings.HasPrefix(name, s) {
			return true
		}
	}
	for _, s := range m.suffix {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	for _, s := range m.contains {
		if strings.Contains(name, s) {
			return true
		}
	}
	for _, r := range m.regex {
		if r.MatchString(name) {
			return true
		}
	}
groups:
	for _, g := range m.all {
		for _, member := range g {
			if !member.match(name) {
				continue groups
			}
		}
		return true
	}
	return false
}

// hasRules reports whether anything but exact names is there.
func (m *matcher) hasRules() bool {
	return len(m.prefix)+len(m.suffix)+len(m.contains)+len(m.regex)+len(m.all) > 0
}

// undated returns the name without a date at its end, as vendors append one to a
// snapshot: -20250929, @20250929, -2025-09-29, -0127.
func undated(name string) (string, bool) {
	for _, layout := range [...]string{"-dddd-dd-dd", "-dddddddd", "@dddddddd", "-dddd"} {
		if cut := len(name) - len(layout); cut > 0 && looksLike(name[cut:], layout) {
			return name[:cut], true
		}
	}
	return name, false
}

// looksLike compares s with layout, where d is any digit.
func looksLike(s, layout string) bool {
	for i := range len(layout) {
		if layout[i] == 'd' {
			if s[i] < '0' || s[i] > '9' {
				return false
			}
		} else if s[i] != layout[i] {
			return false
		}
	}
	return true
}

// plain returns a model's name as books write it: lower case, without what clouds
// put in front of it (an ARN, a resource path).
func plain(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if strings.HasPrefix(name, "arn:") {
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			return name[i+1:]
		}
	}
	// publishers/google/models/gemini-2.5-pro, projects/…/models/…, models/…
	if i := strings.LastIndex(name, "models/"); i >= 0 && (i == 0 || name[i-1] == '/') && !strings.HasPrefix(name, "accounts/") {
		return name[i+len("models/"):]
	}
	return name
}

// endpoint is a host, with * for any part of it, and a prefix of the path.
type endpoint struct {
	host []string // split at *
	path string
	p    *provider
}

// newEndpoint reads a host, in lower case, with the path that may follow.
func newEndpoint(s string, p *provider) endpoint {
	host, path, found := strings.Cut(s, "/")
	if found {
		path = "/" + path
	}
	return endpoint{host: strings.Split(host, "*"), path: path, p: p}
}

func (e *endpoint) match(host, path string) bool {
	if e.path != "" && (!strings.HasPrefix(path, e.path) || len(path) > len(e.path) && path[len(e.path)] != '/' && !strings.HasSuffix(e.path, "/")) {
		return false
	}
	parts := e.host
	if len(parts) == 1 {
		return host == parts[0]
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(host) < len(first)+len(last) || !strings.HasPrefix(host, first) || !strings.HasSuffix(host, last) {
		return false
	}
	rest := host[len(first) : len(host)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return true
}

// ownHost reports whether a host is plainly not a vendor's: this machine, the
// cluster, a private address.
func ownHost(host string) bool {
	switch {
	case host == "localhost", strings.HasPrefix(host, "127."), host == "::1", host == "0.0.0.0",
		strings.HasPrefix(host, "10."), strings.HasPrefix(host, "192.168."),
		strings.HasSuffix(host, ".local"), strings.HasSuffix(host, ".localhost"),
		strings.HasSuffix(host, ".svc"), strings.HasSuffix(host, ".internal"),
		strings.HasSuffix(host, ".lan"), strings.HasSuffix(host, ".home.arpa"):
		return true
	}
	if rest, ok := strings.CutPrefix(host, "172."); ok && len(rest) > 2 && rest[2] == '.' {
		return rest[:2] >= "16" && rest[:2] <= "31"
	}
	return false
}
