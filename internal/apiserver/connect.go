package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/httpstream/wsstream"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/endpoints/request"
	translate "k8s.io/apiserver/pkg/util/proxy"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

// connect joins a request to whatever answers it: a kubelet, a pod, or the pods behind a service.
func (s *Server) connect(w http.ResponseWriter, r *http.Request, q *registry.Request, info *request.RequestInfo) {
	if q.Subresource != "log" { // reading a log is a get, which admission has no part in
		if err := s.reg.Connect(r.Context(), q, connectOptions(q, r.URL.Query(), info)); err != nil {
			writeError(w, r, err)
			return
		}
	}
	if connects(q.Subresource) {
		defer s.metrics.open(r, info)()
	}
	c := &connection{s, w, r, q}
	var err error
	switch q.Resource.Plural + "/" + q.Subresource {
	case "pods/log":
		err = c.log()
	case "pods/explain":
		err = c.explain()
	case "pods/exec":
		err = c.exec("exec")
	case "pods/attach":
		err = c.exec("attach")
	case "pods/portforward":
		err = c.portForward()
	case "nodes/proxy":
		err = c.proxyNode(info)
	case "pods/proxy":
		err = c.proxyPod(info)
	case "services/proxy":
		err = c.proxyService(info)
	default:
		err = notFound()
	}
	if err != nil {
		writeError(w, r, err)
	}
}

// connectOptions are the request's parameters as admission sees them.
func connectOptions(q *registry.Request, query url.Values, info *request.RequestInfo) runtime.Object {
	on := func(name string) bool { v := query.Get(name); return v == "true" || v == "1" }
	path := query.Get("path")
	if len(info.Parts) > 3 {
		path = strings.Join(info.Parts[3:], "/")
	}
	var out runtime.Object
	switch q.Resource.Plural + "/" + q.Subresource {
	case "pods/exec":
		out = &corev1.PodExecOptions{Stdin: on("stdin"), Stdout: on("stdout"), Stderr: on("stderr"), TTY: on("tty"),
			Container: query.Get("container"), Command: query["command"]}
	case "pods/attach":
		out = &corev1.PodAttachOptions{Stdin: on("stdin"), Stdout: on("stdout"), Stderr: on("stderr"), TTY: on("tty"), Container: query.Get("container")}
	case "pods/portforward":
		o := &corev1.PodPortForwardOptions{}
		for _, text := range strings.Split(strings.Join(query["ports"], ","), ",") {
			if port, err := strconv.ParseInt(text, 10, 32); err == nil {
				o.Ports = append(o.Ports, int32(port))
			}
		}
		out = o
	case "pods/proxy":
		out = &corev1.PodProxyOptions{Path: path}
	case "services/proxy":
		out = &corev1.ServiceProxyOptions{Path: path}
	case "nodes/proxy":
		out = &corev1.NodeProxyOptions{Path: path}
	default:
		return nil
	}
	if kinds, _, err := api.Scheme().ObjectKinds(out); err == nil {
		out.GetObjectKind().SetGroupVersionKind(kinds[0])
	}
	return out
}

// connection is one request that goes through to somebody else. Its methods return an error as long as nothing has been answered.
type connection struct {
	s *Server
	w http.ResponseWriter
	r *http.Request
	q *registry.Request
}

func (c *connection) pod() (*corev1.Pod, error) {
	out, err := c.s.reg.Get(c.r.Context(), &registry.Request{Resource: c.q.Resource, Namespace: c.q.Namespace, Name: c.q.Name}, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return out.Object.(*corev1.Pod), nil
}

// explain says why a pod has its node, or none: what the scheduler of this process knows of it.
func (c *connection) explain() error {
	if c.s.cfg.Explain == nil {
		return apierrors.NewServiceUnavailable("no scheduler runs in this server, so it cannot say why a pod has no node")
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), requestTimeout)
	defer cancel()
	out, err := c.s.cfg.Explain(ctx, c.q.Namespace, c.q.Name)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(c.w).Encode(out)
}

// container picks the container that is meant.
func container(p *corev1.Pod, name string) (string, error) {
	var names []string
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			names = append(names, list[i].Name)
		}
	}
	for i := range p.Spec.EphemeralContainers {
		names = append(names, p.Spec.EphemeralContainers[i].Name)
	}
	if name == "" {
		name = p.Annotations["kubectl.kubernetes.io/default-container"]
	}
	if name == "" && len(p.Spec.Containers) == 1 {
		return p.Spec.Containers[0].Name, nil
	}
	if name == "" {
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %v", p.Name, names))
	}
	for _, n := range names {
		if n == name {
			return name, nil
		}
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, p.Name))
}

// onNode finds the pod, its container, and the URL of a path of its node's kubelet.
func (c *connection) onNode(path string, withContainer bool) (*url.URL, error) {
	p, err := c.pod()
	if err != nil {
		return nil, err
	}
	name := ""
	if withContainer {
		if name, err = container(p, c.r.URL.Query().Get("container")); err != nil {
			return nil, err
		}
		name = "/" + name
	}
	if p.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", p.Name))
	}
	u, err := c.s.kubelets.url(c.r.Context(), p.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	u.Path = fmt.Sprintf("/%s/%s/%s%s", path, p.Namespace, p.Name, name)
	return u, nil
}

// askedOfLog is what a log is asked for.
func askedOfLog(name string, query url.Values) (*corev1.PodLogOptions, error) {
	o, err := api.LogOptions(query)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if errs := api.ValidateLogOptions(o); len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), name, errs)
	}
	return o, nil
}

// log passes on what the kubelet reads.
func (c *connection) log() error {
	asked, err := askedOfLog(c.q.Name, c.r.URL.Query())
	if err != nil {
		return err
	}
	p, err := c.pod()
	if err != nil {
		return err
	}
	if p.Spec.NodeName == "" {
		_, err := container(p, asked.Container)
		return err // nothing has been logged yet: an empty answer
	}
	u, err := c.onNode("containerLogs", true)
	if err != nil {
		return err
	}
	query := c.r.URL.Query()
	query.Del("container")
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(c.r.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	defer func(stop func() bool) { stop() }(c.endWithServer(req))
	resp, err := c.s.kubelets.client.Do(req)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("ask the kubelet of node %s for the log: %w", p.Spec.NodeName, err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return plainStatus(resp.StatusCode, strings.TrimSpace(string(text)))
	}
	if wsstream.IsWebSocketRequest(c.r) {
		_ = wsstream.NewReader(resp.Body, true, wsstream.NewDefaultReaderProtocols()).Copy(c.w, c.r)
		return nil // the connection is the client's no more
	}
	c.w.Header().Set("Content-Type", "text/plain")
	c.w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(c.w)
	_ = flush.Flush()
	buf := make([]byte, 16<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if _, err := c.w.Write(buf[:n]); err != nil {
				return nil
			}
			_ = flush.Flush()
		}
		if err != nil {
			return nil
		}
	}
}

// endWithServer cuts a request when the server stops.
func (c *connection) endWithServer(req *http.Request) func() bool {
	ctx, cancel := context.WithCancel(req.Context())
	*req = *req.WithContext(ctx)
	return context.AfterFunc(c.s.stopping, cancel)
}

func plainStatus(code int, text string) error {
	reason := metav1.StatusReasonUnknown
	switch code {
	case http.StatusBadRequest:
		reason = metav1.StatusReasonBadRequest
	case http.StatusNotFound:
		reason = metav1.StatusReasonNotFound
	case http.StatusInternalServerError:
		reason = metav1.StatusReasonInternalError
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: text}}
}

// exec serves exec and attach: SPDY goes through as it is; the WebSocket protocol with stream closing (KEP-4006) ends here and goes on as SPDY.
func (c *connection) exec(path string) error {
	u, err := c.onNode(path, true)
	if err != nil {
		return err
	}
	query := c.r.URL.Query()
	on := func(name string) bool { v := query.Get(name); return v == "true" || v == "1" }
	o := translate.Options{Stdin: on("stdin"), Stdout: on("stdout"), Stderr: on("stderr"), Tty: on("tty")}
	if !o.Stdin && !o.Stdout && !o.Stderr {
		return apierrors.NewBadRequest("you must specify at least 1 of stdin, stdout, stderr")
	}
	to := url.Values{"command": query["command"]}
	for name, set := range map[string]bool{"input": o.Stdin, "output": o.Stdout, "error": o.Stderr && !o.Tty, "tty": o.Tty} {
		if set {
			to.Set(name, "1")
		}
	}
	u.RawQuery = to.Encode()
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(c.r) {
		translate.NewStreamTranslatorHandler(u, c.s.kubelets.transport, 0, o).ServeHTTP(c.w, c.r)
		return nil
	}
	c.upgrade(u).ServeHTTP(c.w, c.r)
	return nil
}

func (c *connection) portForward() error {
	u, err := c.onNode("portForward", false)
	if err != nil {
		return err
	}
	u.RawQuery = url.Values{"port": c.r.URL.Query()["ports"]}.Encode()
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(c.r) {
		translate.NewTunnelingHandler(c.upgrade(u)).ServeHTTP(c.w, c.r)
		return nil
	}
	c.upgrade(u).ServeHTTP(c.w, c.r)
	return nil
}

// upgrade passes an upgraded connection through, byte by byte.
func (c *connection) upgrade(to *url.URL) *proxy.UpgradeAwareHandler {
	h := proxy.NewUpgradeAwareHandler(to, c.s.kubelets.transport, false, true, responder{c.r})
	h.UseLocationHost = true
	return h
}

type responder struct{ r *http.Request }

func (e responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	writeError(w, e.r, apierrors.NewInternalError(err))
}
