package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/rand"

	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

const (
	defaultAccount = "default"
	// tokenVolume begins the name of the volume that holds a pod's credentials; tokenPath is where containers find it.
	tokenVolume = "kube-api-access-"
	tokenPath   = "/var/run/secrets/kubernetes.io/serviceaccount"
	// tokenSeconds is an hour and a little: tokens of this very life are known to be renewed by the kubelet.
	tokenSeconds = 3607
	// accountPatience is how long a pod waits for its new namespace's default account.
	accountPatience = 3 * time.Second

	enforceMountable = "kubernetes.io/enforce-mountable-secrets"
)

// serviceAccount (ServiceAccount) gives a new pod its account and, unless either of them doesn't want it, that account's credentials.
func serviceAccount(ctx context.Context, a *registry.Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || !is(a, "", "pods") || a.Operation != create {
		return nil
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return mirrorPod(a, pod)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	account, err := findAccount(ctx, a, pod.Spec.ServiceAccountName)
	if err != nil {
		return forbid(a, fmt.Errorf("error looking up service account %s/%s: %w", a.Namespace, pod.Spec.ServiceAccountName, err))
	}
	if wantsToken(pod, account) {
		mountToken(&pod.Spec)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = slices.Clone(account.ImagePullSecrets)
	}
	return nil
}

// mirrorPod: a kubelet's static pods are known to the API only by their mirrors, so they can't have anything that the API would have to hand them.
func mirrorPod(a *registry.Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return forbid(a, errors.New("a mirror pod may not reference service accounts"))
	}
	for i := range pod.Spec.Volumes {
		p := pod.Spec.Volumes[i].Projected
		if p == nil {
			continue
		}
		for _, source := range p.Sources {
			if source.ServiceAccountToken != nil {
				return forbid(a, errors.New("a mirror pod may not use ServiceAccountToken volume projections"))
			}
		}
	}
	return nil
}

// findAccount waits, bounded, for the default account of a namespace so new that the controller hasn't come round to it.
func findAccount(ctx context.Context, a *registry.Attributes, name string) (*corev1.ServiceAccount, error) {
	account, err := find[*corev1.ServiceAccount](ctx, a, "", "serviceaccounts", a.Namespace+"/"+name)
	if err != nil || account != nil {
		return account, err
	}
	if name == defaultAccount {
		ctx, cancel := context.WithTimeout(ctx, accountPatience)
		defer cancel()
		if account = awaitAccount(ctx, a, name); account != nil {
			return account, nil
		}
	}
	return nil, apierrors.NewNotFound(corev1.Resource("serviceaccount"), name)
}

func awaitAccount(ctx context.Context, a *registry.Attributes, name string) *corev1.ServiceAccount {
	w, err := collection(a, "", "serviceaccounts").Watch(ctx, store.WatchOptions{Predicate: store.Predicate{Namespace: a.Namespace, Name: name}, Any: true})
	if err != nil {
		return nil
	}
	defer w.Stop()
	for buf := make([]store.Event, 0, 1); ; {
		if buf, err = w.Next(ctx, buf, 1); err != nil {
			return nil
		}
		for _, e := range buf {
			if e.Type == store.Added || e.Type == store.Modified {
				account, _ := e.Entry.Object().(*corev1.ServiceAccount)
				return account
			}
		}
	}
}

// wantsToken: the pod's word counts before the account's.
func wantsToken(pod *corev1.Pod, account *corev1.ServiceAccount) bool {
	for _, wish := range []*bool{pod.Spec.AutomountServiceAccountToken, account.AutomountServiceAccountToken} {
		if wish != nil {
			return *wish
		}
	}
	return true
}

// mountToken mounts the credentials in every container that has nothing in their place.
func mountToken(spec *corev1.PodSpec) {
	name := ""
	for i := range spec.Volumes {
		if strings.HasPrefix(spec.Volumes[i].Name, tokenVolume) {
			name = spec.Volumes[i].Name
			break
		}
	}
	present := name != ""
	if !present {
		name = tokenVolume + rand.String(5)
	}
	mounted := false
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == tokenPath }) {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenPath})
				mounted = true
			}
		}
	}
	if mounted && !present {
		spec.Volumes = append(spec.Volumes, credentials(name))
	}
}

// credentials is the volume: a token that the kubelet renews, the cluster's authority, the namespace.
func credentials(name string) corev1.Volume {
	mode, seconds := int32(0o644), int64(tokenSeconds)
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}}}
}

// mountableSecrets (ServiceAccount) holds pods to the secrets their account lists, where the account's annotation asks for it.
func mountableSecrets(ctx context.Context, a *registry.Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || !is(a, "", "pods") || a.Operation != create || pod.Spec.ServiceAccountName == "" {
		return nil
	}
	account, err := find[*corev1.ServiceAccount](ctx, a, "", "serviceaccounts", a.Namespace+"/"+pod.Spec.ServiceAccountName)
	if err != nil || account == nil || account.Annotations[enforceMountable] != "true" {
		return err
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Secret != nil && !lists(account, v.Secret.SecretName) {
			return forbid(a, fmt.Errorf("volume with secret.secretName=%q is not allowed because service account %s does not reference that secret",
				v.Secret.SecretName, account.Name))
		}
	}
	if err := mountableEnv(a, pod, account); err != nil {
		return err
	}
	for _, s := range pod.Spec.ImagePullSecrets {
		if !slices.Contains(account.ImagePullSecrets, s) {
			return forbid(a, fmt.Errorf("imagePullSecrets[%q] is not allowed because service account %s does not reference that imagePullSecret",
				s.Name, account.Name))
		}
	}
	return nil
}

func mountableEnv(a *registry.Attributes, pod *corev1.Pod, account *corev1.ServiceAccount) error {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, env := range c.Env {
			if env.ValueFrom == nil || env.ValueFrom.SecretKeyRef == nil || lists(account, env.ValueFrom.SecretKeyRef.Name) {
				continue
			}
			return forbid(a, fmt.Errorf("container %s with envVar %s referencing secret.secretName=%q is not allowed "+
				"because service account %s does not reference that secret", c.Name, env.Name, env.ValueFrom.SecretKeyRef.Name, account.Name))
		}
		for _, from := range c.EnvFrom {
			if from.SecretRef != nil && !lists(account, from.SecretRef.Name) {
				return forbid(a, fmt.Errorf("container %s with envFrom referencing secret.secretName=%q is not allowed "+
					"because service account %s does not reference that secret", c.Name, from.SecretRef.Name, account.Name))
			}
		}
	}
	return nil
}

func lists(account *corev1.ServiceAccount, secret string) bool {
	return slices.ContainsFunc(account.Secrets, func(r corev1.ObjectReference) bool { return r.Name == secret })
}
