package loadbalancer

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

func TestPool(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.0/30":                         "192.0.2.1 192.0.2.2",
		"192.0.2.4/31":                         "192.0.2.4 192.0.2.5",
		"192.0.2.7/32":                         "192.0.2.7",
		"192.0.2.255-192.0.3.1":                "192.0.2.255 192.0.3.0 192.0.3.1",
		"192.0.2.9/32, 192.0.2.1 - 192.0.2.2":  "192.0.2.9 192.0.2.1 192.0.2.2",
		"192.0.2.1":                            "! neither a CIDR",
		"192.0.2.1/24":                         "! neither a CIDR",
		"192.0.2.0/33":                         "! neither a CIDR",
		"192.0.2.9-192.0.2.1":                  "! no range",
		"192.0.2.9-":                           "! no range",
		"192.0.2.9-2001:db8::1":                "! no range",
		"2001:db8::/126":                       "2001:db8::1 2001:db8::2 2001:db8::3",
		"2001:db8::4/127":                      "2001:db8::4 2001:db8::5",
		"2001:db8::9-2001:db8::a,192.0.2.7/32": "2001:db8::9 2001:db8::a 192.0.2.7",
		"fe80::1-fe80::9":                      "! no host on a link",
		"fd00::1%eth0-fd00::9%eth0":            "! no host on a link",
		"::ffff:192.0.2.1-::ffff:192.0.2.9":    "! no host on a link",
		"::/124":                               "! no host on a link",
		"ff02::/124":                           "! no host on a link",
		"127.0.0.0/30":                         "! no host on a link",
		"239.255.255.1-255.255.255.255":        "! no host on a link",
		"":                                     "! neither a CIDR",
	} {
		p, err := ParsePool(strings.Split(text, ","))
		if reason, bad := strings.CutPrefix(want, "! "); bad {
			if err == nil || !strings.Contains(err.Error(), reason) {
				t.Errorf("%q: got %v, want an error with %q", text, err, reason)
			}
			continue
		}
		var all []string
		for a := range p.All() {
			if all = append(all, a.String()); !p.Contains(a) {
				t.Errorf("%q does not contain %s", text, a)
			}
		}
		if got := strings.Join(all, " "); err != nil || got != want {
			t.Errorf("%q: got %s, %v; want %s", text, got, err, want)
		}
	}
	p, _ := ParsePool([]string{"10.42.255.0-10.43.0.5"})
	for cidr, want := range map[string]bool{"10.42.0.0/16": true, "10.43.0.0/30": true, "10.43.0.8/29": false, "10.0.0.0/8": true, "10.44.0.0/16": false, "::/0": false} {
		if got := p.Overlap(netip.MustParsePrefix(cidr)) != ""; got != want {
			t.Errorf("overlaps %s: %v", cidr, got)
		}
	}
}

func TestAnnouncer(t *testing.T) {
	s := &corev1.Service{}
	for _, node := range []string{"", "a", "b", ""} {
		meta.SetStatusCondition(&s.Status.Conditions, Elected(node, 1))
		if got := Announcer(s); got != node || len(s.Status.Conditions) != 1 {
			t.Errorf("elected %q, read %q", node, got)
		}
	}
}
