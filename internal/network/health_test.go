package network

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestHealthPort asks a node, as a load balancer does, whether it has an endpoint.
func TestHealthPort(t *testing.T) {
	w := newWorld(t, true)
	answer := func() (code int, body string) {
		resp, err := http.Get("http://127.0.0.1:31999/healthz")
		if err != nil {
			return 0, ""
		}
		defer resp.Body.Close()
		data, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(data)
	}
	s := service("s", "10.43.0.20", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, 31999
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	})
	w.client.put(s, endpoints("s", netip.MustParseAddr("10.42.0.7"), netip.MustParseAddr("10.42.0.8")))
	eventually(t, "the node has endpoints", func() bool {
		code, body := answer()
		return code == 200 && strings.Contains(body, `"localEndpoints":2`) && strings.Contains(body, `"name":"s"`)
	})
	w.client.put(endpoints("s"))
	eventually(t, "the node has none", func() bool { code, _ := answer(); return code == 503 })
	w.client.remove(s)
	eventually(t, "nobody answers", func() bool { code, _ := answer(); return code == 0 })
}
