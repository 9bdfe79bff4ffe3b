package probes

import "errors"

// What NSS' tap needs of NSPR and of NSS, which are libraries of their own or, in
// Mozilla's programs, one. NSPR alone does no TLS, but a process that maps NSS maps it.
var (
	nssImport = []symbolHook{{[]string{"SSL_ImportFD"}, "nss_import", true, 0}}
	nsprHooks = []symbolHook{
		{[]string{"PR_Read"}, "nss_read", false, 3},
		{[]string{"PR_Recv"}, "nss_recv", false, 4},
		{[]string{"PR_Write", "PR_Send"}, "nss_write", false, 3},
		{[]string{"PR_Writev"}, "nss_writev", false, 3},
		{[]string{"PR_Close"}, "nss_close", false, 1},
		{[]string{"PR_Read", "PR_Recv", "PR_Write", "PR_Send", "PR_Writev"}, "nss_return", true, 0},
	}
)

func findNSS(f *elfFile) (*target, error) {
	t := &target{}
	for _, part := range []struct {
		hooks  []symbolHook
		needed []string
	}{{nssImport, []string{"SSL_ImportFD"}}, {nsprHooks, []string{"PR_Read", "PR_Write", "PR_Send", "PR_Recv"}}} {
		found, err := findByName(f, part.hooks, part.needed...)
		switch {
		case errors.Is(err, errNoTarget):
		case err != nil:
			return nil, err
		default:
			t.hooks = append(t.hooks, found.hooks...)
		}
	}
	if t.hooks == nil {
		return nil, errNoTarget
	}
	return t, nil
}
