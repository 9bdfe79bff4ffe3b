package otlp

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// attribute is one attribute of a span: a string, a list of strings, an int64, a
// float64 or a bool.
type attribute struct {
	key   string
	value any
}

func (a attribute) text() string { return fmt.Sprint(a.value) }

// attributes builds a list; what says nothing is left out.
type attributes []attribute

func (a *attributes) string(k, v string) {
	if v != "" {
		*a = append(*a, attribute{k, v})
	}
}

func (a *attributes) int(k string, v int64) {
	if v != 0 {
		*a = append(*a, attribute{k, v})
	}
}

func (a *attributes) seconds(k string, d time.Duration, ok bool) {
	if ok {
		*a = append(*a, attribute{k, d.Seconds()})
	}
}

func (a *attributes) between(k string, from, to flow.Time) {
	d, ok := account.Known(from, to)
	a.seconds(k, d, ok)
}

// class is one of the disjoint classes of tollwire.usage: tokens as an integer.
func (a *attributes) class(u *llm.Usage, c llm.Class) {
	switch {
	case !u.Has(c):
	case c.IsToken():
		*a = append(*a, attribute{"tollwire.usage." + c.String(), int64(u.Get(c))})
	default:
		*a = append(*a, attribute{"tollwire.usage." + c.String(), u.Get(c)})
	}
}

func (a *attributes) tokens(k string, u *llm.Usage, in func(llm.Class) bool) {
	if n, ok := u.Sum(in); ok {
		*a = append(*a, attribute{k, int64(n)})
	}
}

func (a *attributes) strings(k string, v []string) {
	if len(v) > 0 {
		*a = append(*a, attribute{k, v})
	}
}

// describe returns the attributes of r's span, by OpenTelemetry's GenAI conventions
// v1.41 where they have one. Money stands only where it is counted, so that a sum over
// spans counts nothing twice.
func describe(r *account.Record) attributes {
	var a attributes
	c, t, u := r.Call, &r.Call.Times, &r.Call.Usage
	booked := r.Booked()
	a.string("gen_ai.operation.name", c.Operation)
	a.string("gen_ai.provider.name", c.Provider)
	a.string("gen_ai.request.model", c.RequestModel)
	a.string("gen_ai.response.model", c.ResponseModel)
	a.string("gen_ai.response.id", c.ResponseID)
	a.strings("gen_ai.response.finish_reasons", c.FinishReasons)
	if c.API == "" {
		a = append(a, attribute{"gen_ai.request.stream", c.Stream})
	} else {
		a.string("http.request.method", c.Method)
		a.string("tollwire.api", c.API)
	}
	a.string("server.address", c.ServerAddress)
	a.int("server.port", int64(c.ServerPort))
	a.int("http.response.status_code", int64(c.Status))
	a.string("error.type", c.ErrorType)
	a.string("tollwire.service_tier", c.ServiceTier)
	if c.Provider == "openai" {
		a.string("openai.response.service_tier", c.ServiceTier)
	}
	a.strings("tollwire.tool_calls", c.ToolCalls)
	a.strings("tollwire.quality", c.Quality)
	a.int("http.request.resend_count", int64(c.RetryCount))
	a.string("tollwire.retry.group", c.RetryGroup)
	for _, k := range slices.Sorted(maps.Keys(c.RateLimit)) {
		a.strings("http.response.header."+k, []string{c.RateLimit[k]})
	}
	a.tokens("gen_ai.usage.input_tokens", u, llm.Class.IsInput)
	a.tokens("gen_ai.usage.output_tokens", u, llm.Class.IsOutput)
	a.tokens("gen_ai.usage.cache_read.input_tokens", u, llm.Class.IsCacheRead)
	a.tokens("gen_ai.usage.cache_creation.input_tokens", u, llm.Class.IsCacheWrite)
	a.tokens("gen_ai.usage.reasoning.output_tokens", u, func(c llm.Class) bool { return c == llm.Reasoning })
	for class := range llm.NumClasses {
		a.class(u, class)
	}
	if d, ok := account.Known(t.Start, t.FirstChunk); c.Stream {
		a.seconds("gen_ai.response.time_to_first_chunk", d, ok)
	}
	a.between("tollwire.time_to_first_byte", t.Start, t.FirstByte)
	a.between("tollwire.time_to_first_content", t.Start, t.FirstContent)
	a.between("tollwire.time_to_first_visible", t.Start, t.FirstVisible)
	per, ok := r.PerOutputToken()
	a.seconds("tollwire.time_per_output_token", per, ok)
	a.int("tollwire.chunks", int64(t.Chunks))
	a.int("tollwire.chunks_shared", int64(t.Shared))
	gaps := t.FirstContent != 0 && t.Gaps.N() > 0
	a.seconds("tollwire.gap_p50", t.Gaps.Quantile(0.5), gaps)
	a.seconds("tollwire.gap_p95", t.Gaps.Quantile(0.95), gaps)
	a.seconds("tollwire.gap_max", t.Gaps.Max(), gaps)
	a.string("mcp.method.name", c.MCP.Method)
	a.string("gen_ai.tool.name", c.MCP.Tool)

	a.string("tollwire.usage.completeness", c.Completeness.String())
	a.string("tollwire.usage.source", string(c.UsageSource))
	a.string("tollwire.usage.disagreement", c.Disagreement)
	if p := &r.Price; r.Counted {
		if p.Unpriced == "" && p.Source != "" {
			a = append(a, attribute{"tollwire.cost.usd", p.USD.Float64()})
			a.string("tollwire.cost.source", p.Source)
		}
		a.string("tollwire.cost.price_version", p.Version)
		a.string("tollwire.unpriced", p.Unpriced)
		if p.HasSavings {
			a = append(a, attribute{"tollwire.cache_savings.usd", p.Savings.Float64()})
		}
	}
	a.string("tollwire.graph", booked.Graph)
	a.string("tollwire.node", booked.Node)
	a.string("tollwire.node.source", booked.NodeSource)
	a.string("tollwire.tenant", booked.Tenant)
	a.string("tollwire.session", booked.Session)
	for _, k := range slices.Sorted(maps.Keys(r.Owner.Baggage)) {
		a.string("tollwire.baggage."+k, r.Owner.Baggage[k])
	}
	a.string("tollwire.trace.source", r.Trace.Source)
	a.string("tollwire.relay", string(r.Relay))
	if c.Source != flow.SourceNone {
		a.string("tollwire.capture.source", c.Source.String())
	}
	a.string("tollwire.capture.partial", string(c.Partial))
	a.int("tollwire.capture.lost_bytes", int64(c.LostBytes))
	return a
}

// langfuse adds what Langfuse's OTLP endpoint reads beside the conventions. Only a
// counted record is a generation with usage and cost; another end of the same call is
// a plain span, for Langfuse sums over observations.
func langfuse(a attributes, r *account.Record) attributes {
	c, booked := r.Call, r.Booked()
	a.string("langfuse.session.id", booked.Session)
	a.string("langfuse.user.id", booked.Tenant)
	a.string("langfuse.trace.metadata.graph", booked.Graph)
	a.string("langfuse.observation.metadata.node", booked.Node)
	if r.Outcome() != account.OutcomeOK {
		a.string("langfuse.observation.level", "ERROR")
		a.string("langfuse.observation.status_message", c.ErrorType)
	}
	if c.MCP.Method != "" {
		a.string("langfuse.observation.type", "tool")
		return a
	}
	if !r.Counted || c.API != "" {
		a.string("langfuse.observation.type", "span")
		return slices.DeleteFunc(a, func(x attribute) bool {
			return strings.HasPrefix(x.key, "gen_ai.usage.") || strings.HasSuffix(x.key, ".model")
		})
	}
	kind := "generation"
	if c.Operation == "embeddings" {
		kind = "embedding"
	}
	a.string("langfuse.observation.type", kind)
	model := c.ResponseModel
	if model == "" {
		model = c.RequestModel
	}
	a.string("langfuse.observation.model.name", model)
	usage := map[string]float64{}
	for class := range llm.NumClasses {
		if c.Usage.Has(class) {
			usage[langfuseClass(class)] += c.Usage.Get(class)
		}
	}
	if len(usage) > 0 {
		b, _ := json.Marshal(usage) // finite numbers under plain names
		a.string("langfuse.observation.usage_details", string(b))
	}
	if r.Price.Unpriced == "" && r.Price.Source != "" {
		usd := r.Price.USD.String()
		a.string("langfuse.observation.cost_details", `{"total":`+usd+`}`)
		a = append(a, attribute{"gen_ai.usage.cost", r.Price.USD.Float64()})
	}
	if d, ok := account.Known(c.Times.Start, c.Times.FirstContent); ok && c.Stream {
		// A JSON string within the string, as Langfuse's own SDKs write it.
		a.string("langfuse.observation.completion_start_time", strconv.Quote(r.Time.Add(d).UTC().Format("2006-01-02T15:04:05.000000Z")))
	}
	return a
}

// langfuseClass is the name of a class in Langfuse's usage details, where names that
// begin with input and output are summed.
func langfuseClass(c llm.Class) string {
	switch {
	case c == llm.Input, c == llm.Output:
		return c.String()
	case c.IsInput():
		return "input_" + strings.TrimPrefix(c.String(), "input_") + "_tokens"
	case c.IsOutput():
		return "output_" + strings.TrimPrefix(c.String(), "output_") + "_tokens"
	}
	return c.String()
}

// span makes r's span. r.Time must be known.
func span(r *account.Record, a attributes) *tracepb.Span {
	c := r.Call
	took, _ := account.Known(c.Times.Start, c.Times.End)
	s := &tracepb.Span{
		TraceId: id(r.Trace.TraceID), SpanId: id(r.Trace.SpanID), ParentSpanId: id(r.Trace.Parent),
		Name: spanName(c), Kind: tracepb.Span_SPAN_KIND_CLIENT,
		StartTimeUnixNano: uint64(r.Time.UnixNano()), EndTimeUnixNano: uint64(r.Time.Add(took).UnixNano()),
		Attributes: keyValues(a), Flags: uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK) | 1,
	}
	if c.Role == llm.RoleServer {
		s.Kind = tracepb.Span_SPAN_KIND_SERVER
		s.Flags |= uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
	}
	if r.Outcome() != account.OutcomeOK {
		s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: valid(c.ErrorType)}
	}
	return s
}

// spanName is "{operation} {model}", for MCP "{method} {tool}", for another priced API
// "{method} {api}".
func spanName(c *llm.Call) string {
	name := c.Operation + " " + c.RequestModel
	switch {
	case c.MCP.Method != "":
		name = c.MCP.Method + " " + c.MCP.Tool
	case c.API != "":
		name = c.Method + " " + c.API
	}
	if name = strings.TrimSpace(name); name == "" {
		name = "llm"
	}
	return valid(name)
}

func id(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil
	}
	return b
}

// resource returns the attributes of the process that a span belongs to: what is known
// of it, what it states, and what is said of its node, the first winning.
func resource(o *attribution.Owner, node map[string]string) attributes {
	var a attributes
	service := o.ServiceName
	if service == "" {
		service = "unknown_service"
		if o.Executable != "" {
			service += ":" + o.Executable
		}
	}
	a.string("service.name", service)
	a.string("service.namespace", o.ServiceNamespace)
	a.string("service.version", o.ServiceVersion)
	a.string("service.instance.id", o.ServiceInstanceID)
	a.int("process.pid", int64(o.PID))
	a.string("process.executable.name", o.Executable)
	a.string("container.id", o.ContainerID)
	a.string("container.name", o.RuntimeName)
	a.string("container.runtime.name", o.ContainerRuntime)
	a.string("k8s.namespace.name", o.Namespace)
	a.string("k8s.pod.name", o.PodName)
	a.string("k8s.pod.uid", o.PodUID)
	a.string("k8s.container.name", o.ContainerName)
	a.string("k8s.node.name", o.NodeName)
	for _, k := range slices.Sorted(maps.Keys(o.Workload)) {
		a.string(k, o.Workload[k])
	}
	for _, k := range slices.Sorted(maps.Keys(o.PodLabels)) {
		a.string("k8s.pod.label."+k, o.PodLabels[k])
	}
	for _, more := range []map[string]string{o.Attributes, node} {
		for _, k := range slices.Sorted(maps.Keys(more)) {
			if !slices.ContainsFunc(a, func(x attribute) bool { return x.key == k }) {
				a.string(k, more[k])
			}
		}
	}
	return a
}

// valid is s as a message may hold it: one that holds anything but UTF-8 cannot be encoded.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func keyValues(a attributes) []*commonpb.KeyValue {
	kv := make([]*commonpb.KeyValue, len(a))
	for i, x := range a {
		kv[i] = &commonpb.KeyValue{Key: valid(x.key), Value: anyValue(x.value)}
	}
	return kv
}

func anyValue(v any) *commonpb.AnyValue {
	switch v := v.(type) {
	case string:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: valid(v)}}
	case bool:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: v}}
	case int64:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: v}}
	case float64:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: v}}
	case []string:
		list := &commonpb.ArrayValue{}
		for _, s := range v {
			list.Values = append(list.Values, anyValue(s))
		}
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: list}}
	}
	panic(fmt.Sprintf("attribute of type %T", v))
}
