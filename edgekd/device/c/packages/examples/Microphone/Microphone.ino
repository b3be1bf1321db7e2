/* Hears the microphone of a board that has Arduino's PDM library (Nano 33 BLE Sense, Nano RP2040 Connect, Nicla) and says
 * which classes are heard. `lost` counts samples that came while the classifier was busy for too long. */
#include <PDM.h>
#include <edgekd.h>
#include <edgekd_classes.h>

static const uint32_t RING = 8192; /* samples, a power of two: half a second */

static edgekd_t classifier;
static const char *const names[] = EDGEKD_CLASS_NAMES;
static const int32_t heard_from[] = EDGEKD_HEARD_FROM;
static int16_t ring[RING];
static volatile uint32_t written = 0, heard = 0, lost = 0;

static void samplesThere() { /* called in an interrupt */
  static int16_t piece[256];
  for (int bytes = PDM.available(); bytes > 0; bytes = PDM.available()) {
    int count = PDM.read(piece, bytes < (int)sizeof piece ? bytes : (int)sizeof piece) / 2;
    if (count <= 0) return;
    for (int i = 0; i < count; i++) {
      if (written - heard == RING) {
        lost = lost + 1;
        continue;
      }
      ring[written % RING] = piece[i];
      written = written + 1;
    }
  }
}

void setup() {
  Serial.begin(115200);
  edgekd_init(&classifier);
  PDM.onReceive(samplesThere);
  if (!PDM.begin(1, EDGEKD_SAMPLE_RATE)) {
    for (;;) {
      Serial.println("the microphone does not start at this rate");
      delay(1000);
    }
  }
}

void loop() {
  uint32_t at = heard % RING, count = written - heard;
  if (count > RING - at) count = RING - at;
  if (count > EDGEKD_FRAME_HOP) count = EDGEKD_FRAME_HOP;
  if (count == 0) return;
  int complete = edgekd_push(&classifier, ring + at, count);
  heard = heard + count;
  if (!complete) return;
  int32_t scores[EDGEKD_CLASSES];
  edgekd_scores(&classifier, scores);
  for (int k = 0; k < EDGEKD_CLASSES; k++) {
    if (scores[k] < heard_from[k]) continue;
    Serial.print(names[k]);
    Serial.print(' ');
    Serial.print((long)scores[k]);
    Serial.print(" lost ");
    Serial.println((unsigned long)lost);
  }
}
