package sim

import (
	"net/http"
	"slices"
	"strings"
)

// A route leads a method and a path to a vendor.
type route struct {
	method string
	match  func(path string) bool
	vendor *vendor
}

func ends(suffix string) func(string) bool {
	return func(path string) bool { return strings.HasSuffix(path, suffix) }
}

// has matches a path that holds a part and ends in one of ends.
func has(part string, ends ...string) func(string) bool {
	return func(path string) bool {
		return strings.Contains(path, part) && slices.ContainsFunc(ends, func(end string) bool { return strings.HasSuffix(path, end) })
	}
}

// routes are tried in order. Paths are compared by their ends, so that the same
// API under a gateway's or another provider's prefix is answered too.
var routes = []route{
	{http.MethodPost, ends("/chat/completions"), openaiChat},
	{http.MethodPost, ends("/v1/messages"), anthropicMessages},
	{http.MethodPost, ends("/v1/complete"), anthropicComplete},
	{http.MethodPost, ends("/responses"), openaiResponses},
	{http.MethodPost, ends("/completions"), openaiCompletions},
	{http.MethodPost, ends("/embeddings"), openaiEmbeddings},
	{http.MethodPost, ends("/audio/transcriptions"), openaiTranscriptions},
	{http.MethodPost, ends("/audio/speech"), openaiSpeech},
	{http.MethodPost, ends("/images/generations"), openaiImages},
	{http.MethodPost, ends("/images/edits"), openaiImages},
	{http.MethodPost, has("/threads/", "/runs"), openaiRuns},
	{http.MethodPost, has("/publishers/anthropic/models/", ":rawPredict", ":streamRawPredict"), vertexAnthropic},
	{http.MethodPost, has("/models/", ":generateContent", ":streamGenerateContent"), gemini},
	{http.MethodPost, has("/models/", ":embedContent", ":predict"), geminiEmbed},
	{http.MethodPost, ends("/v1beta/interactions"), geminiInteractions},
	{http.MethodPost, has("/model/", "/converse", "/converse-stream"), bedrockConverse},
	{http.MethodPost, has("/model/", "/invoke", "/invoke-with-response-stream"), bedrockInvoke},
	{http.MethodPost, has("/agents/", "/text"), bedrockAgent},
	{http.MethodPost, ends("/v2/chat"), cohereChat},
	{http.MethodPost, ends("/api/v1/chat"), lmstudio},
	{http.MethodPost, ends("/v1/chat"), cohereChat1},
	{http.MethodPost, ends("/v1/generate"), cohereChat1},
	{http.MethodPost, ends("/v1/embed"), cohereEmbed},
	{http.MethodPost, ends("/v2/embed"), cohereEmbed},
	{http.MethodPost, ends("/v2/rerank"), cohereRerank},
	{http.MethodPost, ends("/api/chat"), ollama},
	{http.MethodPost, ends("/api/generate"), ollama},
	{http.MethodPost, ends("/api/embed"), ollamaEmbed},
	{http.MethodPost, ends("/v1/rerank"), rerankTokens},
	{http.MethodPost, has("/services/aigc/", "/generation"), dashscope},
	{http.MethodPost, has("/wenxinworkshop/chat/", ""), baidu},
	{http.MethodPost, has("/ml/v1/text/", "/chat", "/chat_stream", "/generation", "/generation_stream"), watsonx},
	{http.MethodPost, has("/v1/models/", "/predictions"), replicate},
	{http.MethodPost, has("/v2/models/", "/generate", "/generate_stream"), triton},
	{http.MethodPost, ends("/generate"), generate},
	{http.MethodPost, ends("/generate_stream"), generate},
	{http.MethodPost, ends("/completion"), llamacpp},
	{http.MethodPost, ends("/embedding"), llamaEmbedding},
	{http.MethodPost, ends("/complete"), alephAlpha},
	{http.MethodPost, ends("/mcp"), mcp},
}

// serveHTTP is the handler of every connection.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if s.recorded.serves(r) {
		s.replay(w, r)
		return
	}
	path := r.URL.EscapedPath()
	if isUpgrade(r) {
		for _, rt := range socketRoutes {
			if rt.match(path) {
				s.serveSocket(rt.dialogue, w, r)
				return
			}
		}
	}
	if s.serveLater(w, r) {
		return
	}
	for _, rt := range routes {
		if r.Method == rt.method && rt.match(path) {
			s.serve(rt.vendor, w, r)
			return
		}
	}
	s.serveOther(w, r)
	if c, _ := r.Context().Value(connKey{}).(*countedConn); c != nil {
		c.first.Store(0)
	}
}
