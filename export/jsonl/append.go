// Package jsonl writes finished records as JSON Lines, one call a line, and reads
// them back. Keys without a value are absent; durations are seconds, money is a
// decimal string, times are RFC 3339 with nanoseconds.
package jsonl

import (
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/pricing"
)

// Append appends r to dst as one line with its newline. The order of keys is fixed.
func Append(dst []byte, r *account.Record) []byte {
	l := line{append(dst, '{'), len(dst) + 1}
	c, t, u := r.Call, &r.Call.Times, &r.Call.Usage
	booked := r.Booked()

	if !r.Time.IsZero() {
		l.key("time")
		l.b = append(l.b, '"')
		l.b = r.Time.UTC().AppendFormat(l.b, timeFormat)
		l.b = append(l.b, '"')
	}
	l.string("tollwire.role", c.Role.String())
	l.string("gen_ai.provider.name", c.Provider)
	l.string("gen_ai.operation.name", c.Operation)
	l.string("gen_ai.request.model", c.RequestModel)
	l.string("gen_ai.response.model", c.ResponseModel)
	l.string("gen_ai.response.id", c.ResponseID)
	l.strings("gen_ai.response.finish_reasons", c.FinishReasons)
	if c.API == "" {
		l.bool("gen_ai.request.stream", c.Stream)
	}
	l.string("tollwire.api", c.API)
	l.string("server.address", c.ServerAddress)
	l.count("server.port", uint64(max(c.ServerPort, 0)))
	l.count("http.response.status_code", uint64(max(c.Status, 0)))
	l.string("error.type", c.ErrorType)
	l.string("tollwire.service_tier", c.ServiceTier)
	l.strings("tollwire.tool_calls", c.ToolCalls)
	l.strings("tollwire.quality", c.Quality)
	l.string("mcp.method.name", c.MCP.Method)
	l.string("gen_ai.tool.name", c.MCP.Tool)
	l.count("http.request.resend_count", uint64(max(c.RetryCount, 0)))
	l.string("tollwire.retry.group", c.RetryGroup)
	l.headers("http.response.header.", c.RateLimit)

	l.total("gen_ai.usage.input_tokens", u, llm.Class.IsInput)
	l.total("gen_ai.usage.output_tokens", u, llm.Class.IsOutput)
	l.total("gen_ai.usage.cache_read.input_tokens", u, llm.Class.IsCacheRead)
	l.total("gen_ai.usage.cache_creation.input_tokens", u, llm.Class.IsCacheWrite)
	l.total("gen_ai.usage.reasoning.output_tokens", u, func(c llm.Class) bool { return c == llm.Reasoning })
	if !u.Empty() {
		l.key("tollwire.usage")
		l.usage(u)
	}
	l.string("tollwire.usage.completeness", c.Completeness.String())
	l.string("tollwire.usage.source", string(c.UsageSource))
	l.string("tollwire.usage.disagreement", c.Disagreement)

	l.between("tollwire.time_to_first_byte", t.Start, t.FirstByte)
	l.between("tollwire.time_to_first_content", t.Start, t.FirstContent)
	l.between("tollwire.time_to_first_visible", t.Start, t.FirstVisible)
	l.between("gen_ai.client.operation.duration", t.Start, t.End)
	if d, ok := r.PerOutputToken(); ok {
		l.seconds("tollwire.time_per_output_token", d)
	}
	l.count("tollwire.chunks", uint64(max(t.Chunks, 0)))
	l.count("tollwire.chunks_shared", uint64(max(t.Shared, 0)))
	if t.FirstContent != 0 && t.Gaps.N() > 0 {
		l.seconds("tollwire.gap_p50", t.Gaps.Quantile(0.5))
		l.seconds("tollwire.gap_p95", t.Gaps.Quantile(0.95))
		l.seconds("tollwire.gap_max", t.Gaps.Max())
	}

	if p := &r.Price; p.Unpriced == "" && p.Source != "" {
		l.money("tollwire.cost.usd", p.USD)
		l.string("tollwire.cost.source", p.Source)
	}
	l.string("tollwire.cost.price_version", r.Price.Version)
	l.string("tollwire.unpriced", r.Price.Unpriced)
	if r.Price.HasSavings {
		l.money("tollwire.cache_savings.usd", r.Price.Savings)
	}

	o := &r.Owner
	l.count("process.pid", uint64(o.PID))
	l.string("process.executable.name", o.Executable)
	l.string("container.id", o.ContainerID)
	l.string("container.name", o.RuntimeName)
	l.string("container.runtime.name", o.ContainerRuntime)
	l.string("k8s.namespace.name", o.Namespace)
	l.string("k8s.pod.name", o.PodName)
	l.string("k8s.pod.uid", o.PodUID)
	l.string("k8s.container.name", o.ContainerName)
	l.string("k8s.node.name", o.NodeName)
	l.sorted("", o.Workload)
	l.sorted("k8s.pod.label.", o.PodLabels)
	l.string("service.name", o.ServiceName)
	l.string("service.namespace", o.ServiceNamespace)
	l.string("service.version", o.ServiceVersion)
	l.string("service.instance.id", o.ServiceInstanceID)
	l.sorted("", o.Attributes)

	l.string("tollwire.graph", booked.Graph)
	l.string("tollwire.node", booked.Node)
	l.string("tollwire.node.source", booked.NodeSource)
	l.string("tollwire.tenant", booked.Tenant)
	l.string("tollwire.session", booked.Session)
	l.sorted("tollwire.baggage.", o.Baggage)
	l.string("trace_id", r.Trace.TraceID)
	l.string("span_id", r.Trace.SpanID)
	l.string("tollwire.trace.source", r.Trace.Source)
	l.string("tollwire.relay", string(r.Relay))

	if c.Source != flow.SourceNone {
		l.string("tollwire.capture.source", c.Source.String())
	}
	l.string("tollwire.capture.partial", string(c.Partial))
	l.count("tollwire.capture.lost_bytes", c.LostBytes)
	l.string("tollwire.source_id", c.SourceID)
	return append(l.b, '}', '\n')
}

// timeFormat is RFC 3339 with all nine digits of nanoseconds, so that lines sort by time.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// line builds one flat JSON object; values that say nothing leave no key.
type line struct {
	b     []byte
	first int // where the first key goes, so without a comma
}

func (l *line) key(k string) {
	if len(l.b) > l.first {
		l.b = append(l.b, ',')
	}
	l.b = appendString(l.b, k)
	l.b = append(l.b, ':')
}

func (l *line) string(k, v string) {
	if v != "" {
		l.key(k)
		l.b = appendString(l.b, v)
	}
}

func (l *line) strings(k string, v []string) {
	if len(v) == 0 {
		return
	}
	l.key(k)
	l.b = append(l.b, '[')
	for i, s := range v {
		if i > 0 {
			l.b = append(l.b, ',')
		}
		l.b = appendString(l.b, s)
	}
	l.b = append(l.b, ']')
}

func (l *line) sorted(prefix string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		l.string(prefix+k, m[k])
	}
}

// headers writes each field as a list, as the conventions have it.
func (l *line) headers(prefix string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		l.strings(prefix+k, []string{m[k]})
	}
}

func (l *line) bool(k string, v bool) {
	l.key(k)
	l.b = strconv.AppendBool(l.b, v)
}

func (l *line) count(k string, n uint64) {
	if n > 0 {
		l.key(k)
		l.b = strconv.AppendUint(l.b, n, 10)
	}
}

// total writes the sum of the classes that were stated; a stated zero is one.
func (l *line) total(k string, u *llm.Usage, in func(llm.Class) bool) {
	if n, ok := u.Sum(in); ok {
		l.key(k)
		l.b = strconv.AppendFloat(l.b, n, 'f', -1, 64)
	}
}

func (l *line) usage(u *llm.Usage) {
	o := line{append(l.b, '{'), len(l.b) + 1}
	for c := range llm.NumClasses {
		if u.Has(c) {
			o.key(c.String())
			o.b = strconv.AppendFloat(o.b, u.Get(c), 'f', -1, 64)
		}
	}
	l.b = append(o.b, '}')
}

func (l *line) money(k string, m pricing.Money) {
	l.key(k)
	l.b = append(l.b, '"')
	l.b = m.AppendText(l.b)
	l.b = append(l.b, '"')
}

func (l *line) between(k string, from, to flow.Time) {
	if d, ok := account.Known(from, to); ok {
		l.seconds(k, d)
	}
}

// seconds writes d exactly.
func (l *line) seconds(k string, d time.Duration) {
	l.key(k)
	l.b = strconv.AppendInt(l.b, int64(d/time.Second), 10)
	if ns := int64(d % time.Second); ns > 0 {
		digits := strconv.AppendInt(make([]byte, 0, 10), int64(time.Second)+ns, 10)
		digits[0] = '.'
		for digits[len(digits)-1] == '0' {
			digits = digits[:len(digits)-1]
		}
		l.b = append(l.b, digits...)
	}
}

// appendString appends s as a JSON string. What came off the wire need not be
// UTF-8: each byte that isn't becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c < ' ' || c == 0x7f:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			default:
				b = append(b, c)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		b = utf8.AppendRune(b, r)
		i += n
	}
	return append(b, '"')
}
