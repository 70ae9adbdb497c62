{{/* Name of the release's objects. */}}
{{- define "loupe.fullname" -}}
{{- if contains "loupe" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-loupe" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{/* Labels that select pods: never a version in them. Takes a dict of root and component. */}}
{{- define "loupe.selectorLabels" -}}
app.kubernetes.io/name: loupe
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* All recommended labels. Takes a dict of root and component. */}}
{{- define "loupe.labels" -}}
{{ include "loupe.selectorLabels" . }}
app.kubernetes.io/part-of: loupe
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "loupe.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "loupe.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}{{ end -}}
{{- end }}

{{/* Image of a process. Takes a dict of root and process. */}}
{{- define "loupe.image" -}}
{{ .root.Values.image.registry }}/loupe-{{ .process }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* What all pods share: placement, identity, security. Takes the root. */}}
{{- define "loupe.podSpec" -}}
serviceAccountName: {{ include "loupe.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "loupe.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where Kafka and the object store are: every process's environment. Takes the root. */}}
{{- define "loupe.env" -}}
- {name: LOUPE_KAFKA_BOOTSTRAP, value: {{ .Values.kafka.bootstrap | quote }}}
- {name: AWS_DEFAULT_REGION, value: {{ .Values.s3.region | quote }}}
{{- with .Values.s3.endpoint }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ . | quote }}}
{{- end }}
{{- with .Values.s3.existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $.Values.s3.keyIdKey }}}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $.Values.s3.secretKeyKey }}}}
{{- end }}
{{- end }}

{{- define "loupe.databaseEnv" -}}
- name: LOUPE_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.database.existingSecret }}, key: {{ .Values.database.urlKey }}}}
{{- end }}

{{/*
Probes on /healthz, asked from inside of the pod: the pages of trainer and hosting listen on loopback only.
Takes the port.
*/}}
{{- define "loupe.probes" -}}
{{- $ask := printf "import urllib.request as u; u.urlopen('http://127.0.0.1:%d/healthz', timeout=3)" (int .) }}
startupProbe:
  exec: {command: [python, -c, {{ $ask | quote }}]}
  periodSeconds: 3
  timeoutSeconds: 5
  failureThreshold: 40
readinessProbe:
  exec: {command: [python, -c, {{ $ask | quote }}]}
  periodSeconds: 15
  timeoutSeconds: 5
# A neighbour that is away makes a process not ready, and a restart would not bring it back: only one that
# does not answer for minutes is restarted.
livenessProbe:
  exec: {command: [python, -c, {{ $ask | quote }}]}
  periodSeconds: 30
  timeoutSeconds: 5
  failureThreshold: 10
{{- end }}

{{/* Name of the Ray cluster and of the secret with its token. */}}
{{- define "loupe.ray" -}}
{{ include "loupe.fullname" . }}-ray
{{- end }}
{{- define "loupe.raySecret" -}}
{{ .Values.ray.auth.existingSecret | default (include "loupe.ray" .) }}
{{- end }}
