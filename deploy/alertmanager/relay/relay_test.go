package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

const message = `{"version":"4","status":"firing","commonLabels":{"alertname":"TollwireErrors","severity":"page"},
"commonAnnotations":{"description":"look"},"alerts":[
{"status":"firing","labels":{},"annotations":{"summary":"openai gpt-4o: 10% of the calls <fail>"},"startsAt":"2026-08-01T12:00:00Z"},
{"status":"firing","labels":{},"annotations":{"summary":"openai gpt-4o: 10% of the calls <fail>"},"startsAt":"2026-08-01T12:00:00Z"},
{"status":"resolved","labels":{},"annotations":{"summary":"二"},"startsAt":"2026-08-01T12:00:00Z"}],"truncatedAlerts":2}`

// group is a chat group's robot.
type group struct {
	query url.Values
	body  map[string]any
	reply string
	code  int
}

func (g *group) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.query = r.URL.Query()
	b, _ := io.ReadAll(r.Body)
	g.body = nil
	_ = json.Unmarshal(b, &g.body)
	w.WriteHeader(g.code)
	io.WriteString(w, g.reply)
}

func post(t *testing.T, chat, secret string, g *group, body string) int {
	t.Helper()
	robot := httptest.NewServer(g)
	defer robot.Close()
	h := handler(map[string]*target{chat: {url: robot.URL + "/send?access_token=k", secret: secret, shape: shapes[chat]}}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/"+chat, strings.NewReader(body)))
	return w.Code
}

func at(m any, path ...string) string {
	for _, k := range path {
		if l, ok := m.([]any); ok {
			m = l[0]
		}
		o, ok := m.(map[string]any)
		if !ok {
			return ""
		}
		m = o[k]
	}
	s, _ := m.(string)
	return s
}

func TestShapes(t *testing.T) {
	for chat, tc := range map[string]struct {
		kind, text []string
		want       string
	}{
		"dingtalk": {[]string{"msgtype"}, []string{"markdown", "text"}, "### [PAGE] TollwireErrors\n\n- openai gpt-4o: 10% of the calls <fail>\n- 二 (resolved)\n- and 2 more\n\nlook"},
		"feishu":   {[]string{"msg_type"}, []string{"card", "elements", "content"}, "- openai gpt-4o: 10% of the calls <fail>\n- 二 (resolved)\n- and 2 more\n\nlook"},
		"wecom":    {[]string{"msgtype"}, []string{"markdown", "content"}, "**[PAGE] TollwireErrors**\n> openai gpt-4o: 10% of the calls <fail>\n> 二 (resolved)\n> and 2 more\n\nlook"},
		"slack":    {nil, []string{"text"}, "*[PAGE] TollwireErrors*\n• openai gpt-4o: 10% of the calls &lt;fail&gt;\n• 二 (resolved)\n• and 2 more\n\nlook"},
	} {
		g := &group{code: 200, reply: `{"errcode":0,"code":0}`}
		if code := post(t, chat, "secret", g, message); code != 200 {
			t.Errorf("%s: %d", chat, code)
		}
		if got := at(g.body, tc.text...); got != tc.want {
			t.Errorf("%s: %q\nwant %q", chat, got, tc.want)
		}
		if tc.kind != nil && at(g.body, tc.kind...) == "" {
			t.Errorf("%s: no kind in %v", chat, g.body)
		}
		if signed := g.query.Get("sign") + at(g.body, "sign"); (chat == "dingtalk" || chat == "feishu") != (signed != "") {
			t.Errorf("%s: signed %q", chat, signed)
		}
	}
}

func TestRefusedIsSentAgain(t *testing.T) {
	for _, g := range []*group{{code: 500}, {code: 200, reply: `{"errcode":310000,"errmsg":"sign not match"}`}, {code: 200, reply: `{"code":19021,"msg":"sign match fail"}`}} {
		if code := post(t, "feishu", "", g, message); code != http.StatusBadGateway {
			t.Errorf("%+v: %d", g, code)
		}
	}
	if code := post(t, "slack", "", &group{code: 200, reply: "ok"}, message); code != 200 {
		t.Errorf("slack's ok: %d", code)
	}
	if code := post(t, "slack", "", &group{code: 200}, "{"); code != http.StatusBadRequest {
		t.Errorf("no message: %d", code)
	}
}

func TestLongMessagesAreCutBetweenCharacters(t *testing.T) {
	s := cut(strings.Repeat("二", 5000), 4096)
	if len(s) > 4096 || !utf8.ValidString(s) || !strings.HasSuffix(s, "…") {
		t.Errorf("%d bytes, valid %v", len(s), utf8.ValidString(s))
	}
}
