package apiserver

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/endpoints/request"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// kubelets reaches the nodes' kubelets.
type kubelets struct {
	reg       *registry.Registry
	transport *http.Transport
	client    *http.Client
}

func newKubelets(reg *registry.Registry, tls *tls.Config) *kubelets {
	t := &http.Transport{
		TLSClientConfig: tls, DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 8,
	}
	return &kubelets{reg: reg, transport: t, client: &http.Client{Transport: t}}
}

// url of a node's kubelet.
func (k *kubelets) url(ctx context.Context, node string) (*url.URL, error) {
	row := k.reg.Table().ByResource(schema.GroupResource{Resource: "nodes"})
	out, err := k.reg.Get(ctx, &registry.Request{Resource: row, Name: node}, &metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	n := out.Object.(*corev1.Node)
	port := n.Status.DaemonEndpoints.KubeletEndpoint.Port
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeHostName, corev1.NodeExternalIP} {
		for _, a := range n.Status.Addresses {
			if a.Type == kind {
				return &url.URL{Scheme: "https", Host: net.JoinHostPort(a.Address, strconv.Itoa(int(port)))}, nil
			}
		}
	}
	return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("node %s has no address yet", node))
}

// summary asks a node's kubelet what its pods use.
func (k *kubelets) summary(ctx context.Context, node string) (*stats.Summary, error) {
	u, err := k.url(ctx, node)
	if err != nil {
		return nil, err
	}
	u.Path = "/stats/summary"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the kubelet of %s answers %s", node, resp.Status)
	}
	out := &stats.Summary{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, largestSummary)).Decode(out); err != nil {
		return nil, fmt.Errorf("the kubelet of %s: %w", node, err)
	}
	return out, nil
}

// largestSummary is some 2 kB for each of ten thousand containers.
const largestSummary = 20 << 20

// rest is what of a proxy path goes on to the target. It is empty for the bare subresource, from where a reader is sent on to its slash, so that the
// links of what it is shown lead through the proxy too.
func rest(info *request.RequestInfo) string {
	if len(info.Parts) <= 3 && !strings.HasSuffix(info.Path, "/") {
		return ""
	}
	if len(info.Parts) < 3 {
		return "/"
	}
	path := "/" + strings.Join(info.Parts[3:], "/")
	if strings.HasSuffix(info.Path, "/") && path != "/" {
		path += "/"
	}
	return path
}

// through passes a request on to u and rewrites what comes back.
func (c *connection) through(u *url.URL, t http.RoundTripper) error {
	u.RawQuery = c.r.URL.RawQuery
	proxy.NewUpgradeAwareHandler(u, t, t != http.RoundTripper(c.s.kubelets.transport), false, responder{c.r}).ServeHTTP(c.w, c.r)
	return nil
}

// proxyNode asks a node's kubelet, or whatever else listens on it where the name has a port.
func (c *connection) proxyNode(info *request.RequestInfo) error {
	scheme, name, port, err := target(c.q.Name)
	if err != nil {
		return err
	}
	u, err := c.s.kubelets.url(c.r.Context(), name)
	if err != nil {
		return err
	}
	u.Path = rest(info)
	if port == "" || port == u.Port() {
		return c.through(u, c.s.kubelets.transport)
	}
	if err := reachable(u.Hostname()); err != nil {
		return err
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(u.Hostname(), port)
	return c.through(u, insecure(scheme))
}

// target splits "[scheme:]name[:port]".
func target(s string) (scheme, name, port string, err error) {
	parts := strings.Split(s, ":")
	switch len(parts) {
	case 1:
		return "http", parts[0], "", nil
	case 2:
		return "http", parts[0], parts[1], nil
	case 3:
		if parts[0] == "http" || parts[0] == "https" || parts[0] == "" {
			if parts[0] == "" {
				parts[0] = "http"
			}
			return parts[0], parts[1], parts[2], nil
		}
	}
	return "", "", "", apierrors.NewBadRequest(fmt.Sprintf("invalid name %q: [http:|https:]name[:port] is needed", s))
}

// insecure is for pods and services behind https, which have no name that a certificate could be for.
func insecure(scheme string) http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableKeepAlives = true
	if scheme == "https" {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // as upstream: the pod's address is all that is known
	}
	return t
}

// reachable refuses addresses that a pod's status must not send the API server to.
func reachable(ip string) error {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() {
		return apierrors.NewBadRequest("address not allowed")
	}
	return nil
}

func (c *connection) proxyPod(info *request.RequestInfo) error {
	scheme, name, port, err := target(c.q.Name)
	if err != nil {
		return err
	}
	c.q.Name = name
	p, err := c.pod()
	if err != nil {
		return err
	}
	if p.Status.PodIP == "" {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("pod %s has no address yet", name))
	}
	if err := reachable(p.Status.PodIP); err != nil {
		return err
	}
	if port == "" {
		for _, ct := range p.Spec.Containers {
			if len(ct.Ports) > 0 {
				port = strconv.Itoa(int(ct.Ports[0].ContainerPort))
				break
			}
		}
	}
	host := p.Status.PodIP
	if port != "" {
		host = net.JoinHostPort(host, port)
	}
	return c.through(&url.URL{Scheme: scheme, Host: host, Path: rest(info)}, insecure(scheme))
}

func (c *connection) proxyService(info *request.RequestInfo) error {
	scheme, name, port, err := target(c.q.Name)
	if err != nil {
		return err
	}
	out, err := c.s.reg.Get(c.r.Context(), &registry.Request{Resource: c.q.Resource, Namespace: c.q.Namespace, Name: name}, &metav1.GetOptions{})
	if err != nil {
		return err
	}
	svc := out.Object.(*corev1.Service)
	portName := ""
	found := port == "" && len(svc.Spec.Ports) == 1
	for _, p := range svc.Spec.Ports {
		if found || p.Name == port && port != "" || strconv.Itoa(int(p.Port)) == port {
			portName, found = p.Name, true
			break
		}
	}
	if !found {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %q found for service %q", port, name))
	}
	host, err := c.endpoint(svc, portName)
	if err != nil {
		return err
	}
	return c.through(&url.URL{Scheme: scheme, Host: host, Path: rest(info)}, insecure(scheme))
}

// endpoint picks one of the service's ready endpoints.
func (c *connection) endpoint(svc *corev1.Service, portName string) (string, error) {
	row := c.s.reg.Table().ByResource(schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"})
	page, err := c.s.reg.Store().Collection(row).List(c.r.Context(), store.ListOptions{
		Predicate: store.Predicate{Index: "service", Value: svc.Namespace + "/" + svc.Name},
	})
	if err != nil {
		return "", err
	}
	var hosts []string
	for _, e := range page.Entries {
		slice := e.Object().(*discoveryv1.EndpointSlice)
		for _, p := range slice.Ports {
			if p.Port == nil || p.Name != nil && *p.Name != portName {
				continue
			}
			for _, ep := range slice.Endpoints {
				if (ep.Conditions.Ready == nil || *ep.Conditions.Ready) && len(ep.Addresses) > 0 && reachable(ep.Addresses[0]) == nil {
					hosts = append(hosts, net.JoinHostPort(ep.Addresses[0], strconv.Itoa(int(*p.Port))))
				}
			}
		}
	}
	if len(hosts) == 0 {
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", svc.Name))
	}
	return hosts[rand.N(len(hosts))], nil
}
