package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// notification is Alertmanager's webhook message, version 4, as far as it is used.
type notification struct {
	Status            string            `json:"status"` // firing, resolved
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"`
	TruncatedAlerts   int               `json:"truncatedAlerts"`
	Alerts            []struct {
		Status      string            `json:"status"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
		StartsAt    time.Time         `json:"startsAt"`
	} `json:"alerts"`
}

// shape makes a chat's message: where it is posted, and its body.
type shape func(t *target, n *notification, now time.Time) (url string, body any)

// The robots' own documents: open.dingtalk.com (custom robots), open.feishu.cn
// (custom bot), developer.work.weixin.qq.com (group robot), api.slack.com (incoming
// webhooks).
var shapes = map[string]shape{"dingtalk": dingtalk, "feishu": feishu, "wecom": wecom, "slack": slack}

type object = map[string]any

func dingtalk(t *target, n *notification, now time.Time) (string, any) {
	u := t.url
	if t.secret != "" {
		stamp := strconv.FormatInt(now.UnixMilli(), 10)
		h := hmac.New(sha256.New, []byte(t.secret))
		h.Write([]byte(stamp + "\n" + t.secret))
		u += "&timestamp=" + stamp + "&sign=" + url.QueryEscape(base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return u, object{"msgtype": "markdown", "markdown": object{"title": n.title(), "text": cut("### "+n.title()+"\n\n"+n.list("- "), 18000)}}
}

func feishu(t *target, n *notification, now time.Time) (string, any) {
	color := map[string]string{"page": "red", "ticket": "orange"}[n.CommonLabels["severity"]]
	if color == "" || n.Status == "resolved" {
		color = map[bool]string{true: "green", false: "blue"}[n.Status == "resolved"]
	}
	body := object{"msg_type": "interactive", "card": object{
		"header":   object{"title": object{"tag": "plain_text", "content": n.title()}, "template": color},
		"elements": []object{{"tag": "markdown", "content": cut(n.list("- "), 18000)}},
	}}
	if t.secret != "" {
		stamp := strconv.FormatInt(now.Unix(), 10)
		h := hmac.New(sha256.New, []byte(stamp+"\n"+t.secret)) // the key is what is signed, the message is empty
		body["timestamp"], body["sign"] = stamp, base64.StdEncoding.EncodeToString(h.Sum(nil))
	}
	return t.url, body
}

func wecom(t *target, n *notification, _ time.Time) (string, any) {
	return t.url, object{"msgtype": "markdown", "markdown": object{"content": cut("**"+n.title()+"**\n"+n.list("> "), 4096)}}
}

func slack(t *target, n *notification, _ time.Time) (string, any) {
	escape := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	return t.url, object{"text": cut("*"+escape.Replace(n.title())+"*\n"+escape.Replace(n.list("• ")), 38000)}
}

// title says what it is about, and how loud.
func (n *notification) title() string {
	name := n.CommonLabels["alertname"]
	if name == "" {
		name = fmt.Sprintf("%d alerts", len(n.Alerts))
	}
	mark := strings.ToUpper(n.CommonLabels["severity"])
	if n.Status == "resolved" {
		mark = "RESOLVED"
	}
	return strings.TrimSpace("[" + mark + "] " + name)
}

// list has a line an alert, each once.
func (n *notification) list(bullet string) string {
	var l []string
	for _, a := range n.Alerts {
		s := a.Annotations["summary"]
		if s == "" {
			s = a.Labels["alertname"]
		}
		if a.Status == "resolved" && n.Status != "resolved" {
			s += " (resolved)"
		}
		if s = bullet + strings.Join(strings.Fields(s), " "); !slices.Contains(l, s) {
			l = append(l, s)
		}
	}
	if n.TruncatedAlerts > 0 {
		l = append(l, fmt.Sprintf("%sand %d more", bullet, n.TruncatedAlerts))
	}
	if d := n.CommonAnnotations["description"]; d != "" {
		l = append(l, "", d)
	}
	return strings.Join(l, "\n")
}

// cut shortens s to what a chat takes, between characters.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	const more = "…"
	for limit -= len(more); limit > 0 && !utf8.RuneStart(s[limit]); limit-- {
	}
	return s[:limit] + more
}
