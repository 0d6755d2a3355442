package endpointslice

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

func TestHints(t *testing.T) {
	at := func(node, zone string) discoveryv1.Endpoint {
		e := discoveryv1.Endpoint{NodeName: &node}
		if zone != "" {
			e.Zone = &zone
		}
		return e
	}
	unready := func(e discoveryv1.Endpoint) discoveryv1.Endpoint {
		no := false
		e.Conditions.Ready = &no
		return e
	}
	for _, c := range []struct {
		distribution, want string
		endpoints          []discoveryv1.Endpoint
	}{
		{"", "-", []discoveryv1.Endpoint{at("a", "x")}},
		{"PreferClose", "x x y", []discoveryv1.Endpoint{at("a", "x"), at("b", "x"), at("c", "y")}},
		{"PreferSameZone", "x y", []discoveryv1.Endpoint{at("a", "x"), at("c", "y")}},
		{"PreferSameZone", "- -", []discoveryv1.Endpoint{at("a", "x"), at("b", "")}},
		{"PreferSameZone", "x -", []discoveryv1.Endpoint{at("a", "x"), unready(at("b", ""))}},
		{"PreferSameNode", "a/x b/y", []discoveryv1.Endpoint{at("a", "x"), at("b", "y")}},
		{"PreferSameNode", "a/ b/", []discoveryv1.Endpoint{at("a", ""), at("b", "y")}},
	} {
		service := &corev1.Service{}
		if c.distribution != "" {
			service.Spec.TrafficDistribution = &c.distribution
		}
		hint(service, c.endpoints)
		var got []string
		for _, e := range c.endpoints {
			text := "-"
			if h := e.Hints; h != nil {
				text = ""
				for _, n := range h.ForNodes {
					text += fmt.Sprintf("%s/", n.Name)
				}
				for _, z := range h.ForZones {
					text += z.Name
				}
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: got %v, want %s", c.distribution, got, c.want)
		}
	}
}
