package attribution

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName bounds every name and value that is kept, in bytes.
const maxName = 256

// maxAttributes bounds how many attributes one list may state, and an owner may have.
const maxAttributes = 64

// resource is what a process or its pod states about itself, in OpenTelemetry's words.
type resource struct {
	name, namespace, version, instance string            // service.*
	other                              map[string]string // nil when there are none
}

// reserved begin what is no program's to state: who it is by the kernel and by Kubernetes
// is known better, and the rest is said of a call.
var reserved = []string{"k8s.", "container.", "process.", "telemetry.", "tollwire.", "gen_ai.", "mcp.", "server.", "http.", "error."}

// set keeps one attribute.
func (r *resource) set(k, v string) {
	k, v = clean(k, maxName), clean(v, maxName)
	if k == "" || v == "" {
		return
	}
	switch k {
	case "service.name":
		r.name = v
	case "service.namespace":
		r.namespace = v
	case "service.version":
		r.version = v
	case "service.instance.id":
		r.instance = v
	case "time", "trace_id", "span_id": // of a record
	default:
		if slices.ContainsFunc(reserved, func(prefix string) bool { return strings.HasPrefix(k, prefix) }) {
			return
		}
		if r.other == nil {
			r.other = make(map[string]string)
		}
		if len(r.other) < maxAttributes {
			r.other[k] = v
		}
	}
}

// environResource reads the two variables by which a program names itself to
// OpenTelemetry. No other variable is looked at.
func environResource(environ string) resource {
	var r resource
	var service string
	for kv := range strings.SplitSeq(environ, "\x00") {
		if list, ok := strings.CutPrefix(kv, "OTEL_RESOURCE_ATTRIBUTES="); ok {
			eachMember(list, r.set)
		} else if v, ok := strings.CutPrefix(kv, "OTEL_SERVICE_NAME="); ok {
			service = v
		}
	}
	if service != "" {
		r.set("service.name", service)
	}
	// An SDK's default is no name.
	if strings.HasPrefix(r.name, "unknown_service") {
		r.name = ""
	}
	return r
}

// annotationResource reads the annotations resource.opentelemetry.io/KEY.
func annotationResource(annotations map[string]string) resource {
	var r resource
	for _, key := range slices.Sorted(maps.Keys(annotations)) { // the same ones each time
		if k, ok := strings.CutPrefix(key, resourcePrefix); ok {
			r.set(k, annotations[key])
		}
	}
	return r
}

const resourcePrefix = "resource.opentelemetry.io/"

// eachMember calls f with the members of a W3C baggage list, key1=value1;props,
// key2=value2, percent-decoded; OTEL_RESOURCE_ATTRIBUTES has the same form. What
// cannot be read is left out.
func eachMember(list string, f func(k, v string)) {
	n := 0
	for member := range strings.SplitSeq(list, ",") {
		if n++; n > maxAttributes {
			return
		}
		member, _, _ = strings.Cut(member, ";")
		k, v, ok := strings.Cut(member, "=")
		if !ok {
			continue
		}
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		if v, err := url.PathUnescape(v); err == nil && k != "" {
			f(k, v)
		}
	}
}

// clean makes s fit for a name: valid UTF-8, printable, without blanks around it,
// at most limit bytes.
func clean(s string, limit int) string {
	s = strings.TrimSpace(s)
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
		s = strings.TrimSpace(s)
	}
	plain := true
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s))
}
