package api

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// alphaPods are pods' specs with a field of each feature that is off, and what is left of them.
var alphaPods = []struct{ feature, given, left string }{
	{"EmptyDirVolumeMode", `{"volumes":[{"name":"v","emptyDir":{"medium":"Memory","mode":448}}]}`, `{"volumes":[{"name":"v","emptyDir":{"medium":"Memory"}}]}`},
	{"AtomicWriteVolumeUserFields", `{"volumes":[{"name":"v","secret":{"secretName":"s","defaultUser":1,"items":[{"key":"k","path":"p","user":2}]}}]}`,
		`{"volumes":[{"name":"v","secret":{"secretName":"s","items":[{"key":"k","path":"p"}]}}]}`},
	{"AtomicWriteVolumeUserFields", `{"volumes":[{"name":"v","configMap":{"name":"c","defaultUser":1,"items":[{"key":"k","path":"p","user":2}]}}]}`,
		`{"volumes":[{"name":"v","configMap":{"name":"c","items":[{"key":"k","path":"p"}]}}]}`},
	{"AtomicWriteVolumeUserFields", `{"volumes":[{"name":"v","downwardAPI":{"defaultUser":1,"items":[{"path":"p","user":2}]}}]}`, `{"volumes":[{"name":"v","downwardAPI":{"items":[{"path":"p"}]}}]}`},
	{"AtomicWriteVolumeUserFields", `{"volumes":[{"name":"v","projected":{"defaultUser":1,"sources":[{"secret":{"items":[{"key":"k","path":"p","user":2}]}},
		{"configMap":{"items":[{"key":"k","path":"p","user":2}]}},{"downwardAPI":{"items":[{"path":"p","user":2}]}},{"serviceAccountToken":{"path":"p","user":2}},
		{"clusterTrustBundle":{"path":"p","user":2}},{"podCertificate":{"signerName":"s","keyType":"k","user":2}}]}}]}`,
		`{"volumes":[{"name":"v","projected":{"sources":[{"secret":{"items":[{"key":"k","path":"p"}]}},{"configMap":{"items":[{"key":"k","path":"p"}]}},
		{"downwardAPI":{"items":[{"path":"p"}]}},{"serviceAccountToken":{"path":"p"}},{"clusterTrustBundle":{"path":"p"}},{"podCertificate":{"signerName":"s","keyType":"k"}}]}}]}`},
	{"VolumeBindMountOptions", `{"containers":[{"name":"c","volumeMounts":[{"name":"v","mountPath":"/v","bindMountOptions":["noexec"]}]}]}`, `{"containers":[{"name":"c","volumeMounts":[{"name":"v","mountPath":"/v"}]}]}`},
	{"VolumeBindMountOptions", `{"initContainers":[{"name":"c","volumeMounts":[{"name":"v","mountPath":"/v","bindMountOptions":["noexec"]}]}]}`, `{"initContainers":[{"name":"c","volumeMounts":[{"name":"v","mountPath":"/v"}]}]}`},
	{"VolumeBindMountOptions", `{"ephemeralContainers":[{"name":"c","volumeMounts":[{"name":"v","mountPath":"/v","bindMountOptions":["noexec"]}]}]}`, `{"ephemeralContainers":[{"name":"c","volumeMounts":[{"name":"v","mountPath":"/v"}]}]}`},
	{"H2CContainerProbe", `{"containers":[{"name":"c","livenessProbe":{"httpGet":{"port":1,"protocol":"H2C"}},"readinessProbe":{"httpGet":{"port":1,"protocol":"H2C"}},"lifecycle":{"preStop":{"httpGet":{"port":1,"protocol":"H2C"}},"postStart":{"httpGet":{"port":1,"protocol":"H2C"}}}}]}`,
		`{"containers":[{"name":"c","livenessProbe":{"httpGet":{"port":1}},"readinessProbe":{"httpGet":{"port":1}},"lifecycle":{"preStop":{"httpGet":{"port":1}},"postStart":{"httpGet":{"port":1}}}}]}`},
	{"GRPCContainerProbeTLS", `{"containers":[{"name":"c","startupProbe":{"grpc":{"port":1,"service":"s","mode":"TLS"}}}]}`, `{"containers":[{"name":"c","startupProbe":{"grpc":{"port":1,"service":"s"}}}]}`},
	{"EvictionRequestAPI", `{"schedulerName":"s","evictionResponders":[{"name":"r"}]}`, `{"schedulerName":"s"}`},
}

func alphaSpec(t *testing.T, text string) (s corev1.PodSpec) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// What only a feature that is off gives a meaning is dropped from pods and templates, and kept where it was.
func TestAlphaFieldsAreDropped(t *testing.T) {
	for _, c := range alphaPods {
		want := alphaSpec(t, c.left)
		for _, kind := range []func(corev1.PodSpec) Object{
			func(s corev1.PodSpec) Object { return &corev1.Pod{Spec: s} },
			func(s corev1.PodSpec) Object { return &corev1.PodTemplate{Template: corev1.PodTemplateSpec{Spec: s}} },
			func(s corev1.PodSpec) Object {
				return &corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Template: &corev1.PodTemplateSpec{Spec: s}}}
			},
			func(s corev1.PodSpec) Object {
				return &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: s}}}
			},
			func(s corev1.PodSpec) Object {
				return &appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Template: corev1.PodTemplateSpec{Spec: s}}}
			},
			func(s corev1.PodSpec) Object {
				return &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Template: corev1.PodTemplateSpec{Spec: s}}}
			},
			func(s corev1.PodSpec) Object {
				return &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: s}}}
			},
			func(s corev1.PodSpec) Object {
				return &batchv1.Job{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: s}}}
			},
			func(s corev1.PodSpec) Object {
				return &batchv1.CronJob{Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: s}}}}}
			},
		} {
			obj := kind(alphaSpec(t, c.given))
			DropAlpha(obj, nil)
			if got := podSpec(obj); !reflect.DeepEqual(*got, want) {
				t.Errorf("%s: %T keeps %+v", c.feature, obj, got)
			}
			obj = kind(alphaSpec(t, c.given))
			DropAlpha(obj, kind(want))
			if got := podSpec(obj); !reflect.DeepEqual(*got, want) {
				t.Errorf("%s: an update of a %T brings %+v", c.feature, obj, got)
			}
			obj = kind(alphaSpec(t, c.given))
			DropAlpha(obj, kind(alphaSpec(t, c.given)))
			if got := podSpec(obj); !reflect.DeepEqual(*got, alphaSpec(t, c.given)) {
				t.Errorf("%s: a %T loses what it had: %+v", c.feature, obj, got)
			}
		}
	}
	foreign := func(namespace string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{DataSourceRef: &corev1.TypedObjectReference{Kind: "K", Name: "n", Namespace: &namespace}}}
	}
	for namespace, kept := range map[string]bool{"": true, "other": false} {
		c := foreign(namespace)
		DropAlpha(c, nil)
		if (c.Spec.DataSourceRef != nil) != kept {
			t.Errorf("a source in the namespace %q: %+v", namespace, c.Spec.DataSourceRef)
		}
	}
	c := foreign("other")
	if DropAlpha(c, foreign("other")); c.Spec.DataSourceRef == nil {
		t.Error("a source in another namespace that was there is gone")
	}
}

// documented are fields that the types call alpha and that are kept: their features are on by default in 1.37, or Skiff has them.
var documented = []string{
	"PodSpec.resources", "PodSecurityContext.supplementalGroupsPolicy", "VolumeProjection.clusterTrustBundle", "FileKeySelector.key", "TypedObjectReference.namespace",
	"PersistentVolumeClaimSpec.dataSourceRef",
}

// A field of pods that the API's types begin to call alpha must be looked at: it is dropped (alphaPods) or had (documented).
func TestAlphaFieldsAreKnown(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var walk func(of reflect.Type)
	walk = func(of reflect.Type) {
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice || of.Kind() == reflect.Map {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || seen[of] {
			return
		}
		seen[of] = true
		if d, is := reflect.New(of).Interface().(interface{ SwaggerDoc() map[string]string }); is {
			for name, text := range d.SwaggerDoc() {
				path := of.Name() + "." + name
				alpha := name != "" && slices.ContainsFunc([]string{"(Alpha)", "alpha field", "field is alpha", "Alpha, gated", "Alpha stage"}, func(s string) bool { return strings.Contains(text, s) })
				dropped := slices.ContainsFunc(alphaPods, func(c struct{ feature, given, left string }) bool {
					return strings.Contains(c.given, `"`+name+`"`) && !strings.Contains(c.left, `"`+name+`"`)
				})
				if alpha && !dropped && !slices.Contains(documented, path) && path != "EvictionResponder.priority" {
					t.Errorf("%s is alpha: %s", path, text)
				}
			}
		}
		for i := range of.NumField() {
			walk(of.Field(i).Type)
		}
	}
	walk(reflect.TypeFor[corev1.PodSpec]())
	if len(seen) < 50 {
		t.Errorf("a pod has %d types", len(seen))
	}
}
