package pricing

import "testing"

func TestHourly(t *testing.T) {
	b := testBook(t)
	rate, ok := b.Hourly("rack")
	if !ok || rate.Fixed != mustMoney(t, "4") || rate.Variable != mustMoney(t, "0.5") {
		t.Fatal(rate, ok)
	}
	if id, ok := b.SelfHosted("vllm.svc", "/v1/chat/completions"); !ok || id != "rack" {
		t.Fatal(id, ok)
	}
	if _, ok := b.Hourly("acme"); ok {
		t.Error("no machine of one's own")
	}
}
