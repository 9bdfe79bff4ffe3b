package sim

import (
	"net/http"
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

// routes are tried in order. Paths are compared by their ends, so that the same
// API under a gateway's or another provider's prefix is answered too.
var routes = []route{
	{http.MethodPost, ends("/chat/completions"), openaiChat},
	{http.MethodPost, ends("/v1/messages"), anthropicMessages},
}

// serveHTTP is the handler of every connection.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if s.recorded.serves(r) {
		s.replay(w, r)
		return
	}
	path := r.URL.EscapedPath()
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
