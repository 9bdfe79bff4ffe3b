package probes

var (
	gnutlsSend = []string{"gnutls_record_send", "gnutls_record_send2", "gnutls_record_send_range"}
	gnutlsRecv = []string{"gnutls_record_recv", "gnutls_record_recv_seq", "gnutls_record_recv_early_data"}
)

// What GnuTLS' tap needs, and what it takes when this version has it. Early data that a
// client sends (gnutls_record_send_early_data) is left out: whether the server took it,
// or it is to be sent again, is not known then.
var gnutlsHooks = []symbolHook{
	{gnutlsSend, "gnutls_send", false, 3},
	{gnutlsRecv, "gnutls_recv", false, 3},
	{[]string{"gnutls_record_recv_packet"}, "gnutls_recv_packet", false, 1},
	{[]string{"gnutls_record_uncork"}, "gnutls_uncork", false, 0},
	{[]string{"gnutls_record_send_file"}, "gnutls_send_file", false, 4},
	{[]string{"gnutls_init"}, "gnutls_init_enter", false, 1},
	{[]string{"gnutls_deinit"}, "gnutls_deinit", false, 1},
	{append(append([]string{"gnutls_record_recv_packet", "gnutls_record_uncork"}, gnutlsSend...), gnutlsRecv...), "gnutls_return", true, 0},
	{[]string{"gnutls_record_send_file"}, "gnutls_send_file_return", true, 0},
	{[]string{"gnutls_init"}, "gnutls_init_return", true, 0},
}

func findGnuTLS(f *elfFile) (*target, error) {
	return findByName(f, gnutlsHooks, "gnutls_record_send", "gnutls_record_recv")
}
